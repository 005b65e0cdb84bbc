/** The form of a plan: it says that it waits, and marks a plan that was made of other settings than it has now. */

class PlanForm {
  constructor(form) {
    this.form = form;
    form.addEventListener("submit", (event) => this.wait(event.submitter?.dataset.busy));
    form.addEventListener("input", () => this.mark());
    form.elements.dataset.addEventListener("change", () => this.suit());
    addEventListener("pageshow", () => { this.rest(); this.mark(); }); // Back may bring a form as it was left
  }

  /** A training from the card has a recipe of its own. */
  suit() {
    const { dataset, recipe } = this.form.elements;
    const has = [...recipe.options].some((one) => one.value === "card");
    if (dataset.value === "from:card" && has) recipe.value = "card";
  }

  wait(words) {
    this.tell(words ?? "", true);
    setTimeout(() => this.able(false)); // not before it is sent: what is disabled is left out
  }

  rest() {
    this.tell("", false);
    this.able(true);
  }

  tell(words, isBusy) {
    document.getElementById("busy").textContent = words;
    this.form.setAttribute("aria-busy", isBusy);
  }

  able(isAble) {
    for (const button of this.form.querySelectorAll("button")) button.disabled = !isAble;
  }

  mark() {
    const plan = document.getElementById("plan");
    if (!plan) return;
    const fields = [...this.form.elements].filter((field) => field.name && field.type !== "submit");
    const isOther = fields.some((field) => field.value !== asSent(field));
    document.getElementById("changed").hidden = !isOther;
    plan.classList.toggle("old", isOther);
  }
}

/** What a field held when the page came. */
function asSent(field) {
  if (!field.options) return field.defaultValue;
  return ([...field.options].find((one) => one.defaultSelected) ?? field.options[0])?.value;
}

new PlanForm(document.getElementById("plan-form"));
