"""Tempting words that are no personal data, by language and slot.

Entries are separated by a stroke between spaces. Titles, brands and laws that contain a name
are here on purpose.
"""

import re

WORDS = {
    "en": {
        "product": """
            Galaxy Watch 6 / Pixel 8a / ThinkPad X1 Carbon / Roomba i7 / Dyson V11 / Kindle
            Paperwhite / Stanley Quencher /
            Moka pot / Opinel No. 8 / KitchenAid Artisan / Fairphone 5 / Sony WH-1000XM5 / Raspberry
            Pi 4 / Bialetti Venus /
            Brompton C Line / Thermomix TM6 / Ninja Foodi / Victorinox Spartan / Nintendo Switch
            OLED / Steam Deck /
            Echo Dot / Fender Jazz Bass / Gibson Les Paul / Stratocaster / Billy bookcase / Malm
            dresser / Poäng chair /
            Grundig radio / Garmin Edge 530 / Osprey Talon 22 / Petzl Actik / Alexa speaker / Ryobi
            drill
            """,
        "brand": """
            Ben & Jerry's / Wendy's / Jack Daniel's / Levi's / Marks & Spencer / Mercedes /
            Harley-Davidson / Dr. Martens /
            Uncle Ben's / Aunt Bessie's / Ralph Lauren / Johnson & Johnson / Ford / Dyson / Hermes /
            Ted Baker / Tesla /
            John Deere / Philips / Siemens / Bosch / Mars / Dolby / Lloyds / Morrisons / Sainsbury's
            / Trader Joe's /
            Papa John's / Casio / Honda / Suzuki / Adidas / Little Debbie / Burt's Bees / Paul Smith
            / Calvin Klein
            """,
        "title": """
            Jane Eyre / Emma / Anna Karenina / Oliver Twist / David Copperfield / Mary Poppins /
            Doctor Who / Ted Lasso /
            Grey's Anatomy / Robinson Crusoe / Forrest Gump / Jerry Maguire / Being John Malkovich /
            Donnie Darko /
            The Grand Budapest Hotel / Paris, Texas / Casablanca / Fargo / Chicago / Manchester by
            the Sea / Notting Hill /
            Sleepless in Seattle / Rosemary's Baby / Juno / Amélie / Matilda / Coraline / Annie Hall
            / Jolene / Hey Jude /
            Eleanor Rigby / Billie Jean / Penny Lane / Barbara Ann / Roxanne / Georgia on My Mind /
            The Merchant of Venice /
            Hamlet / Romeo and Juliet / Hedda Gabler / Don Giovanni / Carmen / Tosca / Bridgerton /
            Barry Lyndon
            """,
        "hero": """
            Thalveris / Queen Ysolde the Grey / Borin Stonehand / Captain Vex / Orla Duskmantle /
            Sir Gallowby / Marrowjack /
            the Lich of Hollow Fen / Elowen Brightleaf / Old Grimsby the ferryman / Zarathul /
            Princess Kestrel / Drogath /
            Father Ambrose the ghost / Tam Nine-Fingers / Lady Morwenna / Kha'zeth / Brother Osric /
            Wickerwoman Peg /
            Sable of the Ninth House / Rook / Ser Aldous Finch / the Duchess of Thorns / Pip
            Underbough / Ashka
            """,
        "realm": """
            Vael / the Keep of Hollow Fen / Northmarch / the Saltwood / Ember Harbour / Castle
            Grimdell / the Isles of Orr /
            Duskwater / Saint Corvin's Gate / the Glass Desert / Upper Thorn / Kingsbarrow / Port
            Lantern / Mistral Deep
            """,
        "game": """
            Chess / Catan / Carcassonne / Ticket to Ride / Stardew Valley / Portal 2 / Civilization
            VI / Baldur's Gate 3 /
            Elden Ring / Dark Souls / Minecraft / Tetris / Mario Kart 8 / Splatoon / Celeste / Hades
            / Disco Elysium /
            Age of Empires II / FIFA 23 / Monopoly / Cluedo / Splendor / Azul / Dixit / Kingdomino /
            Lara Croft Go
            """,
        "job": """
            plumber / head of marketing / Senior Software Engineer / line cook / Area Sales Manager
            / night nurse /
            Chief Technology Officer / school secretary / Data Analyst / forklift driver / Deputy
            Head / paralegal /
            dental assistant / Managing Director / union rep / Lead UX Designer / caretaker / Baker
            / Mason / Carpenter
            """,
        "topic": """
            Murphy's law / Parkinson's law / Ockham's razor / Schrödinger's cat / the Turing test /
            Moore's law / Halley's comet /
            Gaussian blur / Fourier transforms / the Bernoulli effect / Pascal's triangle / Hobson's
            choice / Bayes' theorem /
            the Doppler effect / Heimlich manoeuvre / Achilles tendon / Pavlov's dogs / Planck's
            constant / Morse code /
            Dijkstra's algorithm / Crohn's disease / Braille / Fahrenheit / Newton's third law / the
            Mercator projection
            """,
        "dish": """
            Caesar salad / beef Wellington / peach Melba / eggs Benedict / Victoria sponge / crêpes
            Suzette / Earl Grey /
            Black Forest gateau / Yorkshire pudding / Margherita / chicken Kiev / Battenberg /
            Cornish pasties / Frankfurters /
            Waldorf salad / Parma ham / Worcester sauce / New York cheesecake / Bolognese / Brussels
            sprouts / Shirley Temple /
            Tom Collins / Bloody Mary / Anzac biscuits / Granny Smith apples / Dijon mustard /
            Jerusalem artichokes
            """,
        "team": """
            Leeds United / Real Madrid / Bayern Munich / the Chicago Bulls / Boston Celtics / Ajax /
            Celtic / Aston Villa /
            Paris Saint-Germain / Inter Milan / the Denver Broncos / Borussia Dortmund / Hull KR /
            Sporting Lisbon / Benfica
            """,
        "capital": """
            Canberra / Ottawa / Oslo / Lisbon / Ankara / Nairobi / Brasília / Wellington / Bern /
            Reykjavik / Lima /
            Montevideo / Ulaanbaatar / Tallinn / Astana / Quito / Bratislava / Vienna / Rome /
            Kingston / Victoria / Georgetown
            """,
        "thing": """
            a Persian rug / Venetian blinds / a Panama hat / Danish pastries / a Swiss army knife /
            French windows / a Boston fern /
            Oxford shoes / a Labrador cross / Bermuda shorts / a Chelsea boot / Turkish delight / a
            Jack Russell / a Yale lock /
            a Phillips screwdriver / a Davy lamp / Wellington boots / a Norfolk jacket / an Allen
            key / a Stanley knife /
            a Bunsen burner / a Ferris wheel / an Alice band / a Geiger counter / a Bowie knife / a
            Jack-in-the-box
            """,
        "plain": """
            will do / may be late / mark it as done / just chase them up / in the grace period /
            frank answer though /
            no hope of that / a bill for nothing / it was a long day / took a page out of their book
            / rose by 4% /
            art is art / jack of all trades / the young and the old / summer is over / drew a blank
            / by dawn at the latest /
            rich coming from them / such a joy / sue me / olive oil all over the floor / rusty but
            it works / a penny for it /
            my faith in trains is gone / grant applications are open / ruby or python, pick one /
            the white one is sold out /
            park at the back / cash only / strong opinions / a best-of-5 / short notice I know /
            black or green ink please
            """,
        "heading": """
            TERMS AND CONDITIONS / IMPORTANT NOTICE / GRAND OPENING / PLEASE READ / KNOWN ISSUES /
            LOST AND FOUND / FINAL CALL /
            PATCH NOTES / SUMMER SALE / MAY BANK HOLIDAY / CHANGE LOG / STAFF ONLY / GROUND RULES /
            SPOILER ALERT /
            WANTED / BLACK FRIDAY / GOOD FRIDAY / PRICE LIST / BEST BEFORE / KING SIZE / RULES OF
            THE HOUSE / READ ME FIRST
            """,
        "tool": """
            Jenkins / Postgres / Redis / GIMP / Ada / Julia / Ruby on Rails / Jekyll / Kafka /
            Ansible / Blender / Maven /
            Python / Rust / Excel / Watson / Siri / Tableau / Grafana / Jupyter / Cassandra / Hugo /
            Gitea / Nagios / Debian
            """,
        "day": "Monday / Tuesday / Wednesday / Thursday / Friday / Saturday / Sunday",
        "month": """
            January / February / March / April / May / June / July / August / September / October /
            November / December
            """,
        "hello": """
            Hi / Hello / hey / Hiya / Morning / hi all / Hi there / yo / Good evening / hey folks /
            ok so
            """,
        "bye": """
            Thanks / Cheers / Best / Kind regards / Best wishes / Thx / Many thanks / Regards / Take
            care / x / ta / Yours /
            Yours faithfully / Warmly / All the best / Speak soon / LG / tia
            """,
        "org": """
            Brightside Housing / Northgate Dental / Blue Harbour Foods / Quayside Media / Hollow
            Tree Nursery / Fennel & Co /
            Ridgeway Cycles / Lantern Books / Apex Roofing / Greenfield Academy / Tidewater
            Insurance / Kestrel Logistics
            """,
        "gripe": """
            the lift has been out for weeks / the heating never comes on / the bins were not emptied
            again / it leaks /
            nobody picks up the phone / the noise at night is unbearable / I was charged twice / the
            parcel arrived crushed /
            the app logs me out every hour / the bus was cancelled without notice / there is mould
            in the bathroom
            """,
        "hobby": """
            pottery / bouldering / old synths / sourdough / birdwatching / tabletop rpgs / vintage
            bikes / sea swimming /
            knitting socks / model trains / film cameras / chess puzzles / home brewing / sci-fi /
            metal detecting / judo
            """,
        "relation": """
            sister / brother / cousin / neighbour / boss / ex / flatmate / aunt / uncle / best
            friend / daughter / son / coach
            """,
    },
    "de": {
        "product": """
            Fritz!Box 7590 / Thermomix / Golf Variant / Anker Powerbank / Hans-im-Glück-Gutschein /
            Tchibo-Kaffee / Emma-Matratze
            """,
        "title": """
            Der Zauberberg / Effi Briest / Babylon Berlin / Die Buddenbrooks / Fräulein Smilla /
            Hänsel und Gretel / Lola rennt
            """,
        "day": "Montag / Dienstag / Mittwoch / Donnerstag / Freitag / Samstag / Sonntag",
        "month": """
            Januar / Februar / März / April / Mai / Juni / Juli / August / September / Oktober /
            November / Dezember
            """,
        "dish": """
            Wiener Schnitzel / Schwarzwälder Kirschtorte / Kaiserschmarrn / Königsberger Klopse /
            Berliner / Frankfurter Kranz / Linzer Torte
            """,
        "heading": """
            WICHTIGER HINWEIS / SOMMERFEST / ALLGEMEINE GESCHÄFTSBEDINGUNGEN / ACHTUNG / ZU
            VERSCHENKEN / TAGESORDNUNG
            """,
    },
    "fr": {
        "product": """
            Citroën Berlingo / Opinel / cafetière Alessi / Cookeo / Nespresso Vertuo / vélo Lapierre
            / Renault Zoé
            """,
        "title": """
            Madame Bovary / Le Comte de Monte-Cristo / Amélie Poulain / Thérèse Raquin / Jules et
            Jim / Cyrano de Bergerac / Germinal
            """,
        "day": "lundi / mardi / mercredi / jeudi / vendredi / samedi / dimanche",
        "month": """
            janvier / février / mars / avril / mai / juin / juillet / août / septembre / octobre /
            novembre / décembre
            """,
        "dish": """
            crêpe Suzette / tarte Tatin / salade niçoise / Paris-Brest / brie de Meaux / hachis
            Parmentier / poire Belle-Hélène
            """,
        "heading": """
            AVIS IMPORTANT / GRANDE BRADERIE / RAPPEL / CONDITIONS GÉNÉRALES / ORDRE DU JOUR / PRIX
            DU MARCHÉ
            """,
    },
    "es": {
        "product": """
            Seat León / Xiaomi Redmi / Cola Cao / freidora Cecotec / Thermomix / bici Orbea / Seat
            Toledo
            """,
        "title": """
            Don Quijote / La casa de Bernarda Alba / Todo sobre mi madre / Carmina Burana / Cien
            años de soledad / Manolito Gafotas
            """,
        "day": "lunes / martes / miércoles / jueves / viernes / sábado / domingo",
        "month": """
            enero / febrero / marzo / abril / mayo / junio / julio / agosto / septiembre / octubre /
            noviembre / diciembre
            """,
        "dish": """
            tarta de Santiago / ensaladilla rusa / fabada / queso de Burgos / paella valenciana /
            yemas de Ávila / morcilla de León
            """,
        "heading": """
            AVISO IMPORTANTE / GRAN REBAJA / ORDEN DEL DÍA / NORMAS / SE BUSCA / CONDICIONES
            """,
    },
    "it": {
        "product": """
            Vespa Primavera / Moka Bialetti / Fiat Panda / Alfa Giulia / Lancia Delta / Bimby /
            scarpe Diadora
            """,
        "title": """
            I promessi sposi / La coscienza di Zeno / Il commissario Montalbano / Pinocchio / Cristo
            si è fermato a Eboli / Tosca
            """,
        "day": "lunedì / martedì / mercoledì / giovedì / venerdì / sabato / domenica",
        "month": """
            gennaio / febbraio / marzo / aprile / maggio / giugno / luglio / agosto / settembre /
            ottobre / novembre / dicembre
            """,
        "dish": """
            pizza Margherita / mortadella Bologna / pesto alla genovese / risotto alla milanese /
            pandoro di Verona / carpaccio
            """,
        "heading": "AVVISO / SALDI ESTIVI / ORDINE DEL GIORNO / REGOLAMENTO / CERCASI / NOVITÀ",
    },
    "nl": {
        "product": """
            Gazelle Orange / Philips Airfryer / Douwe Egberts / Albert Heijn-bonus / Senseo / Van
            Moof / Swapfiets
            """,
        "title": """
            Max Havelaar / Ciske de Rat / Turks Fruit / De ontdekking van de hemel / Floris / Pluk
            van de Petteflet
            """,
        "day": "maandag / dinsdag / woensdag / donderdag / vrijdag / zaterdag / zondag",
        "month": """
            januari / februari / maart / april / mei / juni / juli / augustus / september / oktober
            / november / december
            """,
        "dish": """
            Goudse kaas / Haagse hopjes / Bossche bol / stroopwafels / Groninger koek / Zeeuwse
            mosselen / filet americain
            """,
        "heading": "BELANGRIJK / OPRUIMING / HUISREGELS / AGENDA / GEVONDEN / LET OP",
    },
    "no": {
        "product": """
            Stressless / Freia melkesjokolade / Toyota Auris / Hurtigruten-billett / Solo / Kari
            Traa-ull / Moods of Norway-jakke
            """,
        "title": """
            Peer Gynt / Et dukkehjem / Sofies verden / Kristin Lavransdatter / Olsenbanden / Mannen
            på Hellegata / Skam
            """,
        "day": "mandag / tirsdag / onsdag / torsdag / fredag / lørdag / søndag",
        "month": """
            januar / februar / mars / april / mai / juni / juli / august / september / oktober /
            november / desember
            """,
        "dish": """
            fårikål / Kong Haakon-konfekt / Bergensk fiskesuppe / lefse / Napoleonskake / brunost /
            Toro
            """,
        "heading": "VIKTIG / SOMMERSALG / DUGNAD / HUSREGLER / SAKSLISTE / FUNNET",
    },
    "pl": {
        "product": """
            Fiat Panda / Kubuś / Ptasie Mleczko / rower Romet / Prince Polo / herbata Lipton
            """,
        "title": """
            Pan Tadeusz / Lalka / Ania z Zielonego Wzgórza / Balladyna / Chłopi / Janko Muzykant /
            Wesele
            """,
        "day": "poniedziałek / wtorek / środa / czwartek / piątek / sobota / niedziela",
        "month": """
            styczeń / luty / marzec / kwiecień / maj / czerwiec / lipiec / sierpień / wrzesień /
            październik / listopad / grudzień
            """,
        "dish": """
            pierogi ruskie / sernik krakowski / śledź po japońsku / ryba po grecku / piernik
            toruński / barszcz / karpatka
            """,
        "heading": "WAŻNE / WYPRZEDAŻ / REGULAMIN / PORZĄDEK OBRAD / ZNALEZIONO / UWAGA",
    },
    "pt": {
        "product": """
            Galp gás / café Delta / Renault Clio / Bimby / Azeite Gallo / bicicleta Caloi / Seat
            Ibiza
            """,
        "title": """
            Os Maias / Dom Casmurro / Amália / Memorial do Convento / Iracema / O Crime do Padre
            Amaro / Gabriela, Cravo e Canela
            """,
        "day": "segunda / terça / quarta / quinta / sexta / sábado / domingo",
        "month": """
            janeiro / fevereiro / março / abril / maio / junho / julho / agosto / setembro / outubro
            / novembro / dezembro
            """,
        "dish": """
            bacalhau à Brás / queijo da Serra / pastel de Belém / bacalhau à Gomes de Sá / Romeu e
            Julieta / francesinha
            """,
        "heading": "AVISO / SALDOS / ORDEM DE TRABALHOS / REGULAMENTO / PROCURA-SE / ATENÇÃO",
    },
    "el": {
        "product": """
            Toyota Yaris / καφές Λουμίδης / Xbox / ταχίνι / PlayStation 5 / σοκολάτα Παυλίδη /
            μπλέντερ Philips
            """,
        "title": """
            Ζορμπάς / Η Φόνισσα / Αντιγόνη / Οδύσσεια / Ιφιγένεια / Ο Καπετάν Μιχάλης / Μήδεια
            """,
        "day": "Δευτέρα / Τρίτη / Τετάρτη / Πέμπτη / Παρασκευή / Σάββατο / Κυριακή",
        "month": """
            Ιανουάριο / Φεβρουάριο / Μάρτιο / Απρίλιο / Μάιο / Ιούνιο / Ιούλιο / Αύγουστο /
            Σεπτέμβριο / Οκτώβριο
            """,
        "dish": """
            μπακλαβάς / φάβα Σαντορίνης / μουσακάς / ελιές Καλαμών / λουκάνικα Τζουμαγιάς /
            παστίτσιο
            """,
        "heading": "ΑΝΑΚΟΙΝΩΣΗ / ΠΡΟΣΦΟΡΑ / ΚΑΝΟΝΙΣΜΟΣ / ΠΡΟΣΟΧΗ / ΘΕΜΑΤΑ",
    },
    "ja": {
        "product": """
            プリウス / ウォークマン / ニンテンドースイッチ / 伊右衛門 /
            ムヒ / 六花亭のバターサンド / カシオの電卓
            """,
        "title": """
            千と千尋の神隠し / 坊っちゃん / となりのトトロ / 源氏物語 /
            ちびまる子ちゃん / ハリー・ポッター / サザエさん
            """,
        "day": "月曜日 / 火曜日 / 水曜日 / 木曜日 / 金曜日 / 土曜日 / 日曜日",
        "month": "1月 / 2月 / 3月 / 4月 / 5月 / 6月 / 7月 / 8月 / 9月 / 10月 / 11月 / 12月",
        "dish": """
            札幌ラーメン / 広島焼き / 讃岐うどん / 長崎ちゃんぽん / 仙台牛タン / 京漬物 / 松阪牛
            """,
        "heading": "【重要】 / 【お知らせ】 / 【セール】 / ■議題 / 【注意】",
    },
    "zh": {
        "product": "小米14 / 老干妈 / 王老吉 / 华为Mate 60 / 李宁运动鞋 / 大白兔奶糖 / 张小泉菜刀",
        "title": "红楼梦 / 西游记 / 骆驼祥子 / 哪吒之魔童降世 / 花木兰 / 三国演义 / 白蛇传",
        "day": "周一 / 周二 / 周三 / 周四 / 周五 / 周六 / 周日",
        "month": """
            一月 / 二月 / 三月 / 四月 / 五月 / 六月 / 七月 / 八月 / 九月 / 十月 / 十一月 / 十二月
            """,
        "dish": "北京烤鸭 / 东坡肉 / 麻婆豆腐 / 扬州炒饭 / 兰州拉面 / 宫保鸡丁 / 西湖醋鱼",
        "heading": "【重要通知】 / 【公告】 / 【促销】 / 【注意事项】 / 会议议程",
    },
    "ko": {
        "product": "갤럭시 S24 / 아반떼 / 신라면 / 쏘나타 / 닌텐도 스위치 / 박카스 / 김치냉장고",
        "title": """
            기생충 / 춘향전 / 홍길동전 / 82년생 김지영 / 오징어 게임 / 심청전 / 이상한 변호사 우영우
            """,
        "day": "월요일 / 화요일 / 수요일 / 목요일 / 금요일 / 토요일 / 일요일",
        "month": "1월 / 2월 / 3월 / 4월 / 5월 / 6월 / 7월 / 8월 / 9월 / 10월 / 11월 / 12월",
        "dish": "전주비빔밥 / 춘천닭갈비 / 부산어묵 / 평양냉면 / 제주흑돼지 / 안동찜닭 / 충무김밥",
        "heading": "[공지] / [중요] / [할인] / 회의 안건 / [주의]",
    },
}
"""Entries by language and slot."""


def word_choices(language: str, slot: str) -> list[str]:
    """Returns the entries of a slot; those in English where the language has none of its own."""
    text = WORDS[language].get(slot) or WORDS["en"][slot]
    return [" ".join(entry.split()) for entry in re.split(r"\s/\s", text)]
