"""Privacy texts for members in English and Vietnamese."""

from typing import Literal

import discord

Language = Literal["en", "vi"]

TEXTS: dict[str, dict[Language, str]] = {
    "show_title": {"en": "**What I keep about you**", "vi": "**Những gì tôi lưu về bạn**"},
    "show_nothing": {"en": "Nothing.", "vi": "Không có gì."},
    "show_messages": {
        "en": "• {count} of your messages, the oldest from <t:{since}:D>, as context for personas' replies. Each is "
        "deleted after {days} days, or when you delete it on Discord.",
        "vi": "• {count} tin nhắn của bạn, tin cũ nhất từ <t:{since}:D>, để các nhân vật biết đã nói những gì. Mỗi "
        "tin được xóa sau {days} ngày, hoặc khi bạn xóa nó trên Discord.",
    },
    "show_votes": {
        "en": "• {count} of your votes (👍 👎) on replies, deleted with the replies.",
        "vi": "• {count} lượt bình chọn (👍 👎) của bạn, được xóa cùng với câu trả lời.",
    },
    "show_given": {
        "en": "• What you contributed to personas: {what}. It stays until somebody removes it.",
        "vi": "• Những gì bạn đã đưa cho các nhân vật: {what}. Chúng ở lại cho đến khi có người gỡ đi.",
    },
    "show_taught": {
        "en": "• Replies that you taught personas: {count}. Each stays until it is removed.",
        "vi": "• {count} câu trả lời bạn đã dạy cho các nhân vật. Chúng ở lại cho đến khi được gỡ đi.",
    },
    "show_memories": {
        "en": "• Texts that you asked personas to remember: {count}. Each stays until you have it forgotten "
        "(`/memory show`, `/memory forget`).",
        "vi": "• {count} điều bạn đã nhờ các nhân vật ghi nhớ. Chúng ở lại cho đến khi bạn bảo họ quên "
        "(`/memory show`, `/memory forget`).",
    },
    "show_comparisons": {
        "en": "• Comparisons of two replies, with your choices: {count}. Each stays until you are forgotten.",
        "vi": "• {count} lần so sánh hai câu trả lời, cùng lựa chọn của bạn. Chúng ở lại cho đến khi bạn được quên.",
    },
    "show_reports": {
        "en": "• Replies that you reported to moderators: {count}. Each report is deleted after 30 days, or once a "
        "moderator has dealt with it.",
        "vi": "• {count} câu trả lời bạn đã báo cáo cho người điều hành. Mỗi báo cáo được xóa sau 30 ngày, hoặc khi "
        "người điều hành đã xử lý.",
    },
    "show_acts": {
        "en": "• Your actions as a moderator: {what}.",
        "vi": "• Việc bạn đã làm với tư cách người điều hành: {what}.",
    },
    "show_in": {
        "en": "• Your messages are in the training data of {what}.",
        "vi": "• Bạn có mặt trong dữ liệu của {what}.",
    },
    "show_consent_in": {
        "en": "• **Training: you opted in** on <t:{at}:D>. `/privacy opt-out` ends it at once.",
        "vi": "• **Huấn luyện: bạn đã đồng ý** ngày <t:{at}:D>. `/privacy opt-out` chấm dứt ngay lập tức.",
    },
    "show_consent_out": {
        "en": "• **Training: no.** Nothing you write here is used for training.",
        "vi": "• **Huấn luyện: không.** Những gì bạn viết ở đây không huấn luyện gì cả.",
    },
    "show_forgotten": {
        "en": "I forgot you on <t:{at}:D>: {what}",
        "vi": "Tôi đã quên bạn ngày <t:{at}:D>: {what}",
    },
    "show_forgetting": {
        "en": "You are being forgotten right now.",
        "vi": "Bạn đang được quên ngay lúc này.",
    },
    "show_end": {
        "en": "All of it is stored on one machine, run by the operator: {operator}. `/privacy export` sends it to "
        "you as a file, `/privacy forget` deletes it.",
        "vi": "Tất cả nằm trên máy của người vận hành bot này: {operator}. `/privacy export` gửi cho bạn dưới dạng "
        "tệp, `/privacy forget` xóa nó.",
    },
    "show_engine": {
        "en": "A language model at {hosts} writes the replies: what it answers, and what came before, is sent there.",
        "vi": "Mô hình ngôn ngữ tại {hosts} viết câu trả lời: tin nhắn của bạn và những tin trước đó được gửi đến đó.",
    },
    "operator_unknown": {
        "en": "ask a moderator of this server",
        "vi": "hãy hỏi người điều hành máy chủ này",
    },
    "operator_sandbox": {"en": "you, on this machine", "vi": "chính bạn, trên máy này"},
    "opt_in_ask": {
        "en": "**May personas be trained on your messages?** If you agree, the messages you write to personas here "
        "can become training data: a persona learns from them how to answer you and others. Names, addresses "
        "and the like are replaced first. That makes you hard to identify, but it is no guarantee.\n"
        "{permission}\n"
        "You can withdraw your consent at any time with `/privacy opt-out`. Nothing changes for you if you do not "
        "agree.",
        "vi": "**Có được huấn luyện nhân vật bằng những gì bạn viết không?** Nếu bạn đồng ý, tin nhắn bạn viết cho "
        "các nhân vật ở đây có thể trở thành dữ liệu huấn luyện: nhân vật học cách trả lời bạn và những người "
        "như bạn. Tên, địa chỉ và những thứ tương tự được thay thế trước, nên khó nhận ra bạn nhưng không có "
        "gì bảo đảm.\n"
        "{permission}\n"
        "Bạn có thể rút lại bất cứ lúc nào bằng `/privacy opt-out`. Không đồng ý thì mọi thứ với bạn vẫn như "
        "cũ.",
    },
    "permission_stated": {
        "en": "The operator states that Discord permits this: “{statement}”",
        "vi": "Người vận hành tuyên bố rằng Discord cho phép việc này: “{statement}”",
    },
    "permission_missing": {
        "en": "**For now this changes nothing:** Discord forbids such training without its express permission, and the "
        "operator has not stated that there is one. Your consent takes effect once there is.",
        "vi": "**Hôm nay điều này chưa thay đổi gì:** Discord cấm việc này trừ khi đã cho phép rõ ràng, và người vận "
        "hành chưa tuyên bố có sự cho phép nào. Câu trả lời của bạn có hiệu lực từ ngày có sự cho phép đó.",
    },
    "opt_in_button": {"en": "I agree", "vi": "Tôi đồng ý"},
    "opt_in_done": {
        "en": "You have opted in. `/privacy opt-out` withdraws your consent.",
        "vi": "Đã ghi nhận: bạn đã đồng ý. `/privacy opt-out` để rút lại.",
    },
    "opt_in_already": {
        "en": "You have already opted in. `/privacy opt-out` withdraws your consent.",
        "vi": "Bạn đã đồng ý rồi. `/privacy opt-out` để rút lại.",
    },
    "opt_out_done": {
        "en": "You have opted out: from now on, nothing you wrote or will write is used for training.",
        "vi": "Đã ghi nhận: từ bây giờ không có gì bạn đã viết hay sẽ viết được dùng để huấn luyện.",
    },
    "opt_out_trained": {
        "en": "These were trained on your messages before, and stay in use: {what}. If you wish, they are withdrawn "
        "too: they stop replying at once and are retrained without you.",
        "vi": "Những gì đã được huấn luyện trước đây đã học từ đó và vẫn tiếp tục: {what}. Nếu bạn muốn, chúng cũng "
        "được thu hồi: chúng ngừng nói ngay lập tức và được huấn luyện lại mà không có bạn.",
    },
    "opt_out_nothing": {
        "en": "Nothing has been trained on your messages.",
        "vi": "Bạn không có mặt trong bất cứ thứ gì đã được huấn luyện.",
    },
    "withdraw_button": {"en": "Withdraw these too", "vi": "Thu hồi cả những thứ này"},
    "withdraw_begun": {
        "en": "They are being withdrawn. I will tell you here when it is done.",
        "vi": "Đang thu hồi. Tôi sẽ báo ở đây khi xong.",
    },
    "export_done": {
        "en": "Everything I keep about you, as JSON. Only you can see this message.",
        "vi": "Tất cả những gì tôi lưu về bạn, dạng JSON. Chỉ mình bạn thấy tin nhắn này.",
    },
    "export_large": {
        "en": "Your data is too large for a message ({megabytes:.0f} MB). Ask the operator ({operator}) "
        "to run `python -m bot privacy export` for you.",
        "vi": "Dữ liệu về bạn lớn hơn giới hạn của một tin nhắn ({megabytes:.0f} MB). Hãy nhờ người vận hành "
        "({operator}) chạy `python -m bot privacy export` cho bạn.",
    },
    "forget_ask": {
        "en": "**Forget you?** I will delete your messages and the replies to you, your votes, your consent, what "
        "personas remember for you, and your name and words everywhere else I keep them. Versions of personas that "
        "were trained on your messages stop replying at once and are retrained without you. Lore that you contributed "
        "is deleted; cards stay, without your name. I cannot delete messages in Discord's channels: delete those "
        "there. **This cannot be undone.** You can talk to personas again afterwards, starting from scratch.",
        "vi": "**Quên bạn?** Tôi xóa tin nhắn của bạn và các câu trả lời cho bạn, lượt bình chọn, sự đồng ý của bạn, "
        "những gì các nhân vật ghi nhớ cho bạn, cùng tên và lời của bạn ở mọi nơi khác tôi lưu. Các nhân vật đã "
        "học từ bạn sẽ mất những gì đã học: "
        "những phiên bản đó ngừng nói ngay và được huấn luyện lại mà không có bạn. Tư liệu bạn đã đưa cũng bị "
        "xóa, thẻ nhân vật vẫn ở lại, không kèm tên bạn. Những gì nằm trong các kênh của Discord thì tôi không "
        "quên thay được: hãy xóa ở đó. **Không thể hoàn tác.** Sau đó bạn vẫn có thể nói chuyện lại với các nhân vật; "
        "mọi thứ bắt đầu từ con số không.",
    },
    "forget_button": {"en": "Forget me", "vi": "Hãy quên tôi"},
    "forget_begun": {
        "en": "You are being forgotten. This can no longer be stopped, not even by a power cut. I will tell you here "
        "when it is done; if I cannot, `/privacy show` tells you.",
        "vi": "Bạn đang được quên. Việc này không thể dừng lại nữa, kể cả khi mất điện. Tôi sẽ báo ở đây khi xong; "
        "nếu không báo được, `/privacy show` sẽ cho bạn biết.",
    },
    "forget_already": {"en": "You are already being forgotten.", "vi": "Bạn đang được quên rồi."},
    "receipt_title": {
        "en": "**Done: you have been forgotten.**",
        "vi": "**Xong: bạn đã được quên.**",
    },
    "receipt_trainings": {
        "en": "**Done: everything trained on your messages is withdrawn.**",
        "vi": "**Xong: những gì được huấn luyện bằng dữ liệu của bạn đã được thu hồi.**",
    },
    "receipt_rows": {
        "en": "• Deleted: {messages} messages, {replies} replies to you, {votes} votes, {memories} memories. Other "
        "texts in which your name or words were replaced: {mentions}.",
        "vi": "• Đã xóa: {messages} tin nhắn, {replies} câu trả lời cho bạn, {votes} lượt bình chọn, {memories} điều "
        "ghi nhớ. Trong {mentions} văn bản khác, tên hoặc lời của bạn đã được thay thế.",
    },
    "receipt_files": {
        "en": "• {deleted} files and folders deleted, {cut} rewritten without you.",
        "vi": "• {deleted} tệp và thư mục đã bị xóa, {cut} đã được viết lại mà không có bạn.",
    },
    "receipt_withdrawn": {"en": "• Withdrawn: {what}.", "vi": "• Đã thu hồi: {what}."},
    "receipt_exports": {
        "en": "• {count} file(s) were copied elsewhere before (a backup may contain your data, an export does). I "
        "cannot delete those. Ask the operator: {operator}.",
        "vi": "• {count} tệp đã rời khỏi đây từ trước (bản sao lưu có thể chứa dữ liệu của bạn, bản xuất thì có); tôi "
        "không thể lấy lại. Hãy hỏi người vận hành: {operator}.",
    },
    "receipt_resumed": {
        "en": "• I was restarted meanwhile, so these counts may be too low. Everything was deleted.",
        "vi": "• Tôi đã bị khởi động lại giữa chừng, nên các con số này có thể thấp hơn thực tế. Không có gì bị bỏ "
        "sót.",
    },
    "adapter": {"en": "{name} {version}", "vi": "{name} {version}"},
    "dialogue": {"en": "the dialogue adapter {name}", "vi": "bộ hội thoại {name}"},
    "job": {"en": "a training job ({name})", "vi": "một lượt huấn luyện ({name})"},
    "dataset": {"en": "a data set", "vi": "một bộ dữ liệu"},
    "lore": {"en": "lore “{what}” for {persona}", "vi": "tư liệu “{what}” cho {persona}"},
    "card": {"en": "the card of {persona}", "vi": "thẻ nhân vật của {persona}"},
    "jobs": {"en": "training jobs requested ({count})", "vi": "{count} lần yêu cầu huấn luyện"},
    "promotions": {
        "en": "versions promoted ({count})",
        "vi": "{count} phiên bản được đưa vào dùng",
    },
    "rollouts": {
        "en": "rollouts started or ended ({count})",
        "vi": "{count} phiên bản được đưa ra dùng thử",
    },
    "channels": {
        "en": "channels given a persona ({count})",
        "vi": "{count} kênh được gán nhân vật",
    },
    "mutes": {"en": "mutes ({count})", "vi": "{count} lần tắt tiếng"},
    "announced": {
        "en": "-# {version} of {name} has been withdrawn: someone whose messages were in its training data asked to be "
        "removed. {now} replies now.",
        "vi": "-# Phiên bản {version} của {name} đã được thu hồi: một người có lời trong dữ liệu của nó đã yêu cầu "
        "được rút ra. {now} đang nói thay.",
    },
    "announced_again": {
        "en": "A version without them is being trained.",
        "vi": "Một phiên bản không có người đó đang được huấn luyện.",
    },
    "announced_alone": {
        "en": "It is not retrained: there is no data left without them, or a moderator has to request it.",
        "vi": "Nó không được huấn luyện lại: không có người đó thì không còn dữ liệu, hoặc cần có người yêu cầu.",
    },
}
COMMAND_DESCRIPTIONS = {
    "See what is kept about you, allow or forbid training on it, or delete it.": (
        "Những gì được lưu về bạn, có được dùng để huấn luyện không, và cách xóa."
    ),
    "See what I keep about you, for how long, and who runs me.": "Xem tôi lưu gì về bạn, bao lâu, và ai vận hành tôi.",
    "Consent to training on what you write; I explain it first.": (
        "Đồng ý để nhân vật học từ những gì bạn viết; tôi sẽ giải thích trước."
    ),
    "Withdraw your consent: nothing you wrote is used for training from then on.": (
        "Rút lại sự đồng ý; từ đó không có gì bạn viết được dùng để huấn luyện."
    ),
    "Get everything I keep about you as a file.": "Nhận tất cả những gì tôi lưu về bạn dưới dạng tệp.",
    "Delete your messages, your votes, and what was trained on them.": (
        "Yêu cầu tôi quên bạn: tin nhắn, bình chọn và những gì được huấn luyện từ đó."
    ),
}
"""Command descriptions and their Vietnamese."""


def language_of(locale: discord.Locale) -> Language:
    return "vi" if locale is discord.Locale.vietnamese else "en"


def translate(language: Language, key: str, **values: object) -> str:
    return TEXTS[key][language].format(**values)


class CommandTranslator(discord.app_commands.Translator):
    """Translates command descriptions into Vietnamese for Discord."""

    async def translate(
        self,
        string: discord.app_commands.locale_str,
        locale: discord.Locale,
        context: discord.app_commands.TranslationContextTypes,
    ) -> str | None:
        if locale is not discord.Locale.vietnamese:
            return None
        return COMMAND_DESCRIPTIONS.get(string.message)
