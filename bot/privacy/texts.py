"""Privacy texts for members."""

from bot.platform import localisation
from bot.platform.localisation import gettext_noop

TEXTS = {
    "show_title": gettext_noop("**What I keep about you**"),
    "show_nothing": gettext_noop("Nothing."),
    "show_messages": gettext_noop(
        "• {count} of your messages, the oldest from <t:{since}:D>, as context for personas' "
        "replies. Each is deleted after {days} days, or when you delete it on Discord."
    ),
    "show_votes": gettext_noop(
        "• {count} of your votes (👍 👎) on replies, deleted with the replies."
    ),
    "show_given": gettext_noop(
        "• What you contributed to personas: {what}. It stays until somebody removes it."
    ),
    "show_taught": gettext_noop(
        "• Replies that you taught personas: {count}. Each stays until it is removed."
    ),
    "show_memories": gettext_noop(
        "• Texts that you asked personas to remember: {count}. Each stays until you have it "
        "forgotten (`/memory show`, `/memory forget`)."
    ),
    "show_comparisons": gettext_noop(
        "• Comparisons of two replies, with your choices: {count}. Each stays until you are "
        "forgotten."
    ),
    "show_reports": gettext_noop(
        "• Replies that you reported to moderators: {count}. Each report is deleted after 30 "
        "days, or once a moderator has dealt with it."
    ),
    "show_acts": gettext_noop("• Your actions as a moderator: {what}."),
    "show_in": gettext_noop("• Your messages are in the training data of {what}."),
    "show_consent_in": gettext_noop(
        "• **Training: you opted in** on <t:{at}:D>. `/privacy opt-out` ends it at once."
    ),
    "show_consent_out": gettext_noop(
        "• **Training: no.** Nothing you write here is used for training."
    ),
    "show_forgotten": gettext_noop("I forgot you on <t:{at}:D>: {what}"),
    "show_forgetting": gettext_noop("You are being forgotten right now."),
    "show_end": gettext_noop(
        "All of it is stored on one machine, run by the operator: {operator}. `/privacy "
        "export` sends it to you as a file, `/privacy forget` deletes it."
    ),
    "show_engine": gettext_noop(
        "A language model at {hosts} writes the replies: what it answers, and what came "
        "before, is sent there."
    ),
    "operator_unknown": gettext_noop("ask a moderator of this server"),
    "operator_sandbox": gettext_noop("you, on this machine"),
    "opt_in_ask": gettext_noop(
        "**May personas be trained on your messages?** If you agree, the messages you write "
        "to personas here can become training data: a persona learns from them how to answer "
        "you and others. Names, addresses and the like are replaced first. That makes you "
        "hard to identify, but it is no guarantee.\n"
        "{permission}\n"
        "You can withdraw your consent at any time with `/privacy opt-out`. Nothing changes "
        "for you if you do not agree."
    ),
    "permission_stated": gettext_noop(
        "The operator states that Discord permits this: “{statement}”"
    ),
    "permission_missing": gettext_noop(
        "**For now this changes nothing:** Discord forbids such training without its express "
        "permission, and the operator has not stated that there is one. Your consent takes "
        "effect once there is."
    ),
    "opt_in_button": gettext_noop("I agree"),
    "opt_in_done": gettext_noop("You have opted in. `/privacy opt-out` withdraws your consent."),
    "opt_in_already": gettext_noop(
        "You have already opted in. `/privacy opt-out` withdraws your consent."
    ),
    "opt_out_done": gettext_noop(
        "You have opted out: from now on, nothing you wrote or will write is used for training."
    ),
    "opt_out_trained": gettext_noop(
        "These were trained on your messages before, and stay in use: {what}. If you wish, "
        "they are withdrawn too: they stop replying at once and are retrained without you."
    ),
    "opt_out_nothing": gettext_noop("Nothing has been trained on your messages."),
    "withdraw_button": gettext_noop("Withdraw these too"),
    "withdraw_begun": gettext_noop(
        "They are being withdrawn. I will tell you here when it is done."
    ),
    "export_done": gettext_noop(
        "Everything I keep about you, as JSON. Only you can see this message."
    ),
    "export_large": gettext_noop(
        "Your data is too large for a message ({megabytes:.0f} MB). Ask the operator "
        "({operator}) to run `python -m bot privacy export` for you."
    ),
    "forget_ask": gettext_noop(
        "**Forget you?** I will delete your messages and the replies to you, your votes, your"
        " consent, what personas remember for you, and your name and words everywhere else I "
        "keep them. Versions of personas that were trained on your messages stop replying at "
        "once and are retrained without you. Lore that you contributed is deleted; cards "
        "stay, without your name. I cannot delete messages in Discord's channels: delete "
        "those there. **This cannot be undone.** You can talk to personas again afterwards, "
        "starting from scratch; if a moderator has blocked you, or you have had your replies for "
        "today, that still holds."
    ),
    "forget_button": gettext_noop("Forget me"),
    "forget_begun": gettext_noop(
        "You are being forgotten. This can no longer be stopped, not even by a power cut. I "
        "will tell you here when it is done; if I cannot, `/privacy show` tells you."
    ),
    "forget_already": gettext_noop("You are already being forgotten."),
    "receipt_title": gettext_noop("**Done: you have been forgotten.**"),
    "receipt_trainings": gettext_noop(
        "**Done: everything trained on your messages is withdrawn.**"
    ),
    "receipt_rows": gettext_noop(
        "• Deleted: {messages} messages, {replies} replies to you, {votes} votes, {memories} "
        "memories. Other texts in which your name or words were replaced: {mentions}."
    ),
    "receipt_files": gettext_noop(
        "• {deleted} files and folders deleted, {cut} rewritten without you."
    ),
    "receipt_withdrawn": gettext_noop("• Withdrawn: {what}."),
    "receipt_exports": gettext_noop(
        "• {count} file(s) were copied elsewhere before (a backup may contain your data, an "
        "export does). I cannot delete those. Ask the operator: {operator}."
    ),
    "receipt_resumed": gettext_noop(
        "• I was restarted meanwhile, so these counts may be too low. Everything was deleted."
    ),
    "adapter": gettext_noop("{name} {version}"),
    "dialogue": gettext_noop("the dialogue adapter {name}"),
    "job": gettext_noop("a training job ({name})"),
    "dataset": gettext_noop("a data set"),
    "lore": gettext_noop("lore “{what}” for {persona}"),
    "card": gettext_noop("the card of {persona}"),
    "jobs": gettext_noop("training jobs requested ({count})"),
    "promotions": gettext_noop("versions promoted ({count})"),
    "channels": gettext_noop("channels given a persona ({count})"),
    "mutes": gettext_noop("mutes ({count})"),
    "announced": gettext_noop(
        "-# {version} of {name} has been withdrawn: someone whose messages were in its "
        "training data asked to be removed. {now} replies now."
    ),
    "announced_again": gettext_noop("A version without them is being trained."),
    "announced_alone": gettext_noop(
        "It is not retrained: there is no data left without them, or a moderator has to request it."
    ),
}


def translate(key: str, **values: object) -> str:
    """Return a text in the present language, with its gaps filled."""
    return localisation.translate(TEXTS[key], **values)
