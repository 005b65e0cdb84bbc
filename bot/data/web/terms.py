"""Words of the data that the pages of data sets show in the page's language by the filter `term`.
Others that the trainer writes stay as they are.
"""

from bot.platform.localisation import gettext_noop

DROP_REASONS = {
    gettext_noop("another bot"),
    gettext_noop("answers somebody who has not opted in"),
    gettext_noop("boilerplate"),
    gettext_noop("command"),
    gettext_noop("deleted"),
    gettext_noop("duplicate"),
    gettext_noop("edited later"),
    gettext_noop("forwarded message"),
    gettext_noop("held out before"),
    gettext_noop("leads to no reply"),
    gettext_noop("leads to no reply that may be used"),
    gettext_noop("near duplicate"),
    gettext_noop("no text"),
    gettext_noop("no token of the reply to train on"),
    gettext_noop("nobody answers"),
    gettext_noop("not on the best-ranked path"),
    gettext_noop("only a sticker"),
    gettext_noop("only an attachment"),
    gettext_noop("only an embed"),
    gettext_noop("over the mix"),
    gettext_noop("over the share of lore pairs"),
    gettext_noop("over the source's limit"),
    gettext_noop("precedes the first message"),
    gettext_noop("repetition"),
    gettext_noop("reply to nobody"),
    gettext_noop("reply too long"),
    gettext_noop("reply too short"),
    gettext_noop("reply without a word"),
    gettext_noop("said by somebody who has not opted in"),
    gettext_noop("says that another was deleted"),
    gettext_noop("system message"),
    gettext_noop("the persona is played by somebody who has not opted in"),
    gettext_noop("too long"),
    gettext_noop("voted down"),
    gettext_noop("without a line of the named character"),
}
"""Why the trainer drops a record or a reply."""
