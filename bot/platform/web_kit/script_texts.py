"""The texts that the scripts of pages show, for `translate` in static/base.js."""

from bot.platform.localisation import Language, find_translation, gettext_noop

SCRIPT_TEXTS = (
    gettext_noop("Choose a file, or paste text."),
    gettext_noop("Wait for the other file, or cancel it."),
    gettext_noop("The bot cannot be reached. Send it again."),
    gettext_noop("There is a file {name} already. Replace it?"),
    gettext_noop("There is a file {name} already. Give this one another name."),
    gettext_noop("The disk has no room for it."),
    gettext_noop("The upload was cancelled; nothing of it is stored."),
    gettext_noop("Uploading…"),
    gettext_noop("Uploading: {percent} % of {size} MiB"),
    gettext_noop("It is incomplete. Send it again."),
    gettext_noop("The bot rejected it."),
    gettext_noop("The bot does not answer; this was its state at {at}."),
    gettext_noop("Sign in"),
    gettext_noop("(in a new window): your session has ended."),
    gettext_noop("Their name"),
    gettext_noop("Their first line appears here."),
    gettext_noop("{count} of {all} tokens of every prompt"),
    gettext_noop("(nothing came out)"),
    gettext_noop("by the base model, untrained"),
    gettext_noop("Stopped."),
    gettext_noop("The bot does not answer."),
    gettext_noop("The bot does not answer: token counts may be outdated."),
    gettext_noop("The card takes {count} tokens."),
    gettext_noop("base model"),
    gettext_noop("lore: {names}"),
    gettext_noop("cut off at the length limit"),
    gettext_noop("ended at a repetition, which was removed"),
    gettext_noop("the message was too long: its middle was left out"),
    gettext_noop("{count} new tokens, {prompt} in the prompt"),
    gettext_noop("The upload was cancelled."),
    gettext_noop("Refreshed every two seconds while the bot answers."),
    gettext_noop("The doctor has finished."),
    gettext_noop("The doctor has finished: reload the page to see its findings."),
    gettext_noop("{first} s"),
    gettext_noop("{first} min {second} s"),
    gettext_noop("{first} h {second} min"),
    gettext_noop("{step} of {of}"),
    gettext_noop("step {step} of {of}, loss {loss}"),
    gettext_noop("ready in about {left}"),
    gettext_noop("{first} min"),
    gettext_noop("The rest of its score card is being measured: {percent} %, at most {left} left."),
    gettext_noop("Changed: {settings}."),
    gettext_noop("Nothing is changed."),
    gettext_noop("queued"),
    gettext_noop("waiting"),
    gettext_noop("running"),
    gettext_noop("done"),
    gettext_noop("failed"),
    gettext_noop("cancelled"),
)


def script_texts(language: Language) -> dict[str, str]:
    """Return the translations of those texts that are others in the language."""
    translations = {text: find_translation(text, language) for text in SCRIPT_TEXTS}
    return {text: translation for text, translation in translations.items() if translation}
