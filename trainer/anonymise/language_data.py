"""Character classes, word lists, titles and surnames of the anonymiser's languages."""

from __future__ import annotations

import re

WORD_START, WORD_END = r"(?<![A-Za-z0-9])", r"(?![A-Za-z0-9])"
LATIN = "A-Za-z\u00c0-\u00d6\u00d8-\u00f6\u00f8-\u024f\u1e00-\u1eff"
"""Latin letters with all diacritics, for a character class."""

CJK = "\u3005\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af\uf900-\ufaff"
"""Chinese characters, kana and hangul, for a character class."""

HAN = "\u3005\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"

_FULLWIDTH_TABLE = {0xFF01 + position: 0x21 + position for position in range(0x5E)} | {
    0x3000: 0x20,
    0xA0: 0x20,
    0x202F: 0x20,
    0x2011: 0x2D,
}

_FULLWIDTH = re.compile("[\uff01-\uff5e\u3000\xa0\u202f\u2011]")
ENGLISH_WORDS = frozenset(
    """a about above abyss ace ad admin after again age ago air all alone along also always am amber an and
    angel another any apple april are arrow art as ash ask at august aurora autumn away axe baby back bad badger
    ball bane bank bar bark bat be bean bear beast beau bee been bell berry big bill bird biscuit bishop bit
    black blade blaze blue bold bolt bone book boss bot both box boy brand bread breeze brook brother brown
    bubble buck bud bug builder bunny burn but butter button by cactus call came can candle candy captain car
    card case cat champ chance charity charm chase chef cherry chief child chip christian clay clever cliff
    cloud coal coast cobalt coffee cold colt come cook cookie cool copper coral corn could count court crane
    cream creek crimson crow crown cruel crystal cup cute cyber daddy daisy dale dance dark darling dash dave
    dawn day dead dean death deep deer demon den desert destiny devil dew diamond did die do doc dog doll done
    dove down dr dragon drake dream drew drifter drop duck duke dusk dust eagle early earl earth east easy eat
    echo egg ember emerald end eternity even ever every evil eye face fairy faith falcon fall fan far fast fat
    father fawn fern few field fight fire first fish flame flash flint flower fly fog food for force ford forest
    forever found fox frank free friend frog from frost full fun fury game garnet gem gene general gentle get
    ghost giant ginger girl give glad glen glitch glory go goat god gold golden good goose got grace grand grant
    grass gray great green grey grim guard guest gus guy had hail half hand happy hard harmony harper has hat
    hate have haven hawk hay hazel he head heart heath heather heaven help her here hero hi high hill him his
    hit holly holy home honey honor hood hook hop hope horse hot hour house how hunter i ice if in indigo ink
    into iris iron is island it its ivory ivy jack jade jasmine jazz jet jewel job jolly jordan joy joker judge
    july jump june just justice kay keen keep kid kill king kit kitten knight know lad lady lake lamb lamp lance
    land lane large lark last late laurel lavender law lazy leaf legend lemon let liberty life light like lily
    lime lion lit little live loki lone long look lord lost lot love low luck lucky luna lunar mad magic
    magnolia major make man maple marble march marina mark marsh mask master mate max may me mean meadow med
    melody men mercy merry metal midnight might miles milk mint miss mist mister mo mod mole mom mommy moon more
    morning moss most moth mother mountain mouse much mud muffin my myth name nate neon nest never new next nice
    nick night nightmare ninja no nobody noble noodle north not nova now null oak ocean of off oil old olive on
    once one onion only opal or orange orchid other otter our out over owl own paddle page pan panda panther
    paris park parker party pat path patience peace peach peanut pear pearl pebble penguin penny pepper person
    phantom phoenix pickle pie pierce pig pike pilgrim pilot pine pink piper pirate pixel pixie plum point
    poison poppy porter potato potter power prince princess puppy pure purple queen quick quiet rabbit rage rain
    rainbow randy raven ray real red reed reef reaper rebel rich right ring river road rob robin rock rocket
    rocky rod rogue root rose rover royal ruby run rusty sad sage sailor saint salt sand sandy savage scarlet
    scout sea seal season see serenity shade shadow shark she shell sheriff ship shy sid silent silly silver
    sister sky skye sleep sleepy slick slow small smart smith smoke smokey snake snow so soap sol soldier some
    someone son song sonny soul soup south sparrow spark spice spider spike spirit spring star stark stay steel
    stella stone storm stormy strange street strong such sue sugar summer sun sunny sunset sunshine super sweet
    swift table tad take tall tank tea teacher tech tempest than that the them then there they thing think this
    thorn those thunder tide tiger tim time tin tiny tip to toast todd toffee tom too top torch tree trinity
    trip trouble true truth try turtle twilight twin two unicorn unit up user valentine vault velvet very victor
    video viking violet viper void wade walker wall want warrior was wave way we weather web well were west wet
    whale what wheat when where which whiskey white who why wild will willow win wind wine wing winter wise
    witch with wizard wolf woman wonder wood woody word work world worm worth would wren wright yellow yes you
    young your zen zero zombie""".split()
)
VIETNAMESE_WORDS = frozenset(
    """an anh ánh ba bác bạch bách bái bán bảo bắc băng bé bích biển bình bông bơ bơi ca cá cao cát cẩm cậu cha
    chanh châu chi chí chị chim chín chính cho chó chú cô cốm công cơm cúc cung cường cửu dân diễm diện diệu
    dung dũng dương duyên đạt đan đào đạo đẹp đêm đình định đoàn đông đồng đức đường em gái gấu gia giang giao
    giáp hà hạ hai hải hằng hạnh hành hào hảo hân hậu hiếu hiền hiển hiệp hoa hoà hòa hoài hoàn hoàng hồ hồng
    huệ hùng huy huyền hương hường hưng hữu khang khánh khải khiêm khoa khoai khôi kiên kiệt kiều kim kính lâm
    lam lan lành lâu lê lệ liên liễu linh lộc lợi long lúa lương ly mai mạnh mây mẹ mèo minh mít mỡ mơ mới mùa
    muối my mỹ nam năm nắng nga ngân nghĩa ngoan ngọc ngô ngôn nguyên nguyệt nhã nhân nhật nhi nhiên nho nhung
    như ni ninh nở oanh ông ớt phát phi phong phú phúc phụng phước phương phượng quân quang quế quốc quý quyên
    quyết quỳnh sang sao sen sinh sóc sóng son sơn sử sương sữa ta tài tâm tân tấn tây tên thái thanh thành thảo
    thắng thạch thi thiên thiện thịnh thoa thông thơ thu thuận thục thủy thúy thư thương thy tiên tiến tím tín
    tình tính toàn toán tôm tôn trà trai trang trâm trân tri trí triều trinh trong trọng trung trúc trường tú
    tuấn tuệ tùng tuyền tuyết tươi tường uyên vàng văn vân vi việt vinh vĩnh võ vũ vui vương vy xinh xuân xoài ý
    yên yến""".split()
)
CJK_WORDS = frozenset(
    """月亮 太阳 星星 天空 大海 白云 小猫 小狗 猫咪 狗狗 老师 同学 朋友 先生 小姐 妈妈 爸爸 哥哥 姐姐 弟弟 妹妹
    宝宝 老板 大神 队长 船长 国王 公主 王子 天使 恶魔 死神 骑士 法师 玩家 路人 游客 用户 游戏 音乐 快乐 幸福
    自由 和平 希望 梦想 未来 春天 夏天 秋天 冬天 今天 明天 昨天 早上 晚上 下雨 下雪 彩虹 雪花 樱花 玫瑰 苹果
    香蕉 西瓜 草莓 柠檬 咖啡 牛奶 豆腐 包子 饺子 米饭 面包 蛋糕 糖果 可爱 美丽 聪明 大家 我们 你们 他们 自己
    什么 怎么 这里 那里 东西 时间 时候 世界 中国 北京 上海 小说 电影 手机 电脑 高兴 安静 平安 黄金 白银 金子
    方便 方法 时代 项目 马上 马路 白天 白色 黄色 温暖 温柔 安全 安心 高级 高山 花朵 花园 石头 江山 江湖 于是
    常常 任何 任务 成功 成为 计划 许多 程序 车子 易于 元气 小心 小时 天気 元気 猫 犬 月 星 空 海 花 雪 春 夏 秋
    冬 光 影 王 人 心 今日 明日 昨日 学生 友達 仲間 自分 時間 名前 言葉 音楽 映画 さくら ひかり そら うみ はな
    ゆき はる なつ あき ねこ いぬ くま うさぎ みんな わたし ぼく あなた どこ いつ なに だれ これ それ あれ ここ
    そこ ゲーム テスト ユーザー ゲスト リーダー キング""".split()
)
DETERMINERS = (
    "the a an some no this my your his our their these those any every each i you he she it we they to".split()
)
"""Words that precede common nouns, and rarely names."""
LATIN_TITLES = re.compile(
    r"(?:^|[^a-zà-ỹ])(?:anh|chị|em|cô|chú|bác|ông|bà|thầy|bạn|dì|cậu|mợ|cụ|bé|mr|mrs|ms|miss|mx|dr|prof|sir|madam|"
    r"uncle|aunt|auntie|cousin|hey|hi|hello|yo|chào|cảm ơn|cám ơn|thanks|ping|cc|dear)\.?\s$"
)
VOCATIVES = re.compile(r"\s(?:ơi|à|nè|nhé|ạ|oi|ui)(?![a-zà-ỹ])|['’]s(?![a-z])")
HONORIFICS = re.compile(
    "さん|くん|君|ちゃん|様|さま|氏|先輩|先生|殿|たん|っち|哥|姐|总|總|老师|老師|先生|女士|小姐|同学|同學|师傅|叔|阿姨|"
    "大哥|大姐|妹妹|弟弟|兄|桑|酱|醬|씨|님"
)
PARTICLES = re.compile("[はがをにのともへでやねよかっ、。！？!?,.\\s]|です|だ|から|まで|より|って|$")
CJK_SURNAMES = frozenset(
    """王 李 张 張 刘 劉 陈 陳 杨 楊 赵 趙 黄 黃 周 吴 吳 徐 孙 孫 胡 朱 高 林 何 郭 马 馬 罗 羅 梁 宋 郑 鄭 谢
    謝 韩 韓 唐 冯 馮 于 董 萧 蕭 肖 程 曹 袁 邓 鄧 许 許 傅 沈 曾 彭 吕 呂 苏 蘇 卢 盧 蒋 蔣 蔡 贾 賈 丁 魏 薛
    叶 葉 阎 余 潘 杜 戴 夏 钟 鐘 汪 田 任 姜 范 方 石 姚 谭 譚 廖 邹 鄒 熊 金 陆 陸 郝 孔 白 崔 康 毛 邱 秦 江
    史 顾 顧 侯 邵 孟 龙 龍 万 萬 段 雷 钱 錢 汤 湯 尹 黎 易 常 武 乔 喬 贺 賀 赖 賴 龚 龔 文 欧阳 歐陽 司马
    司馬 上官 诸葛 諸葛 司徒 慕容 令狐 阮 温 柳 祝 葛 骆 駱 靳 简 簡 费 費 裴 김 이 박 최 정 강 조 윤 장 임""".split()
)
IS_HAN = re.compile(f"[{HAN}]+")


def normalise_width(text: str) -> str:
    """Convert full-width characters to ASCII and all spaces to plain ones; the length does not change."""
    return text.translate(_FULLWIDTH_TABLE) if _FULLWIDTH.search(text) else text


def text_before(text: str, position: int, length: int) -> str:
    """Return the text before a position in lower case."""
    return text[max(0, position - length) : position].lower()
