"""Towns and streets by language, written for this package; an underscore stands for a space."""

TOWNS = {
    "us": """
        Akron,OH,44305 Albany,NY,12203 Amarillo,TX,79106 Asheville,NC,28801 Bangor,ME,04401
        Bellingham,WA,98225 Boise,ID,83702 Buffalo,NY,14214 Charleston,SC,29403 Cheyenne,WY,82001
        Davenport,IA,52803 Dayton,OH,45419 Duluth,MN,55804 El_Paso,TX,79912 Eugene,OR,97405
        Fargo,ND,58103 Flagstaff,AZ,86004 Fort_Collins,CO,80525 Gary,IN,46404 Independence,MO,64055
        Jackson,MS,39206 Kalamazoo,MI,49008 Knoxville,TN,37919 Lincoln,NE,68506 Little_Rock,AR,72205
        Madison,WI,53711 Mobile,AL,36604 Paradise,NV,89119 Peoria,IL,61614 Phoenix,AZ,85016
        Providence,RI,02906 Reading,PA,19606 Salem,OR,97302 Spokane,WA,99203 Tacoma,WA,98406
        Truth_or_Consequences,NM,87901 Tulsa,OK,74114 Waco,TX,76708 Yonkers,NY,10701 Yuma,AZ,85364
        """,
    "gb": """
        Aberdeen,,AB10 Accrington,,BB5 Barnsley,,S70 Bath,,BA2 Blackpool,,FY1 Bolton,,BL1
        Bristol,,BS6
        Bury,,BL9 Cardiff,,CF24 Carlisle,,CA1 Coventry,,CV5 Crewe,,CW2 Derby,,DE22 Diss,,IP22
        Dundee,,DD2 Exeter,,EX4 Goole,,DN14 Hove,,BN3 Hull,,HU5 Kendal,,LA9 Leeds,,LS6
        Llanelli,,SA15 Luton,,LU3 Newcastle_upon_Tyne,,NE6 Norwich,,NR2 Nottingham,,NG7 Oban,,PA34
        Paisley,,PA1 Peterborough,,PE2 Poole,,BH15 Preston,,PR2 Reading,,RG1 Rugby,,CV22 Sale,,M33
        Sandwich,,CT13 Sheffield,,S10 Slough,,SL1 Stoke-on-Trent,,ST4 Swansea,,SA2 Truro,,TR1
        Wakefield,,WF1 Ware,,SG12 Wells,,BA5 Whitby,,YO21 Wigan,,WN1 York,,YO23
        """,
    "au": """
        Ballarat,VIC,3350 Bendigo,VIC,3550 Cairns,QLD,4870 Dubbo,NSW,2830 Fremantle,WA,6160
        Geelong,VIC,3220 Hobart,TAS,7000 Launceston,TAS,7250 Newcastle,NSW,2300 Orange,NSW,2800
        Toowoomba,QLD,4350 Wagga_Wagga,NSW,2650
        """,
    "ca": """
        Guelph,ON,N1H Halifax,NS,B3H Hamilton,ON,L8P Kelowna,BC,V1Y London,ON,N6A
        Medicine_Hat,AB,T1A
        Moose_Jaw,SK,S6H Red_Deer,AB,T4N Regina,SK,S4P Sudbury,ON,P3E Victoria,BC,V8V
        """,
    "ie": """
        Athlone,,N37 Ballina,,F26 Cork,,T12 Drogheda,,A92 Ennis,,V95 Galway,,H91
        Sligo,,F91 Tralee,,V92
        """,
    "de": """
        Aachen,,52062 Bamberg,,96047 Bielefeld,,33602 Bochum,,44787 Chemnitz,,09111 Cottbus,,03046
        Erfurt,,99084 Essen,,45127 Flensburg,,24937 Fulda,,36037 Göttingen,,37073 Graz,,8010
        Halle,,06108
        Hamm,,59065 Kassel,,34117 Kiel,,24103 Leipzig,,04277 Linz,,4020 Lübeck,,23552 Münster,,48143
        Rostock,,18055 Singen,,78224 Trier,,54290 Ulm,,89073 Winterthur,,8400 Worms,,67547
        Würzburg,,97070
        """,
    "fr": """
        Aix-en-Provence,,13100 Angers,,49000 Annecy,,74000 Besançon,,25000 Brest,,29200
        Clermont-Ferrand,,63000
        Dijon,,21000 Grenoble,,38000 La_Rochelle,,17000 Le_Mans,,72000 Lille,,59000 Limoges,,87000
        Lyon,,69003 Metz,,57000 Nantes,,44000 Nîmes,,30000 Pau,,64000 Quimper,,29000 Rennes,,35000
        Saint-Étienne,,42000 Tours,,37000 Tarbes,,65000 Lausanne,,1004 Namur,,5000
        """,
    "es": """
        Albacete,,02001 Almería,,04001 Ávila,,05001 Badajoz,,06001 Burgos,,09003 Cáceres,,10001
        Castellón,,12001
        Cuenca,,16001 Elche,,03201 Gijón,,33201 Huesca,,22001 Jaén,,23001 León,,24002 Logroño,,26001
        Lugo,,27001
        Mérida,,06800 Murcia,,30001 Oviedo,,33003 Pamplona,,31001 Salamanca,,37001 Toledo,,45001
        Valladolid,,47001 Vigo,,36201 Zaragoza,,50003
        """,
    "it": """
        Ancona,AN,60121 Arezzo,AR,52100 Bari,BA,70121 Bergamo,BG,24121 Bologna,BO,40121
        Brescia,BS,25121
        Catania,CT,95124 Como,CO,22100 Ferrara,FE,44121 Foggia,FG,71121 Genova,GE,16121
        Lecce,LE,73100
        Lucca,LU,55100 Modena,MO,41121 Padova,PD,35121 Parma,PR,43121 Pavia,PV,27100
        Perugia,PG,06121
        Rimini,RN,47921 Sassari,SS,07100 Siena,SI,53100 Trento,TN,38122 Udine,UD,33100
        """,
    "nl": """
        Alkmaar,,1811 Almelo,,7607 Amersfoort,,3811 Apeldoorn,,7311 Arnhem,,6811 Assen,,9401
        Breda,,4811
        Delft,,2611 Den_Bosch,,5211 Deventer,,7411 Dordrecht,,3311 Eindhoven,,5611 Ede,,6711
        Gent,,9000
        Gouda,,2801 Groningen,,9711 Haarlem,,2011 Hoorn,,1621 Leiden,,2311 Lent,,6663 Nijmegen,,6511
        Tilburg,,5011 Zwolle,,8011 Zeist,,3701
        """,
    "no": """
        Alta,,9510 Arendal,,4836 Bergen,,5018 Bodø,,8005 Drammen,,3015 Fredrikstad,,1606
        Gjøvik,,2815 Hamar,,2317
        Hell,,7517 Kongsberg,,3611 Kristiansand,,4612 Lillehammer,,2609 Molde,,6413 Moss,,1531
        Narvik,,8514
        Sandnes,,4306 Skien,,3724 Stavanger,,4008 Tromsø,,9008 Trondheim,,7011 Voss,,5700 Å,,8392
        Ålesund,,6002
        """,
    "pl": """
        Białystok,,15-001 Bielsko-Biała,,43-300 Bydgoszcz,,85-001 Częstochowa,,42-200 Gdynia,,81-300
        Gliwice,,44-100
        Kalisz,,62-800 Katowice,,40-001 Kielce,,25-001 Koszalin,,75-001 Lublin,,20-001 Łódź,,90-001
        Nowy_Sącz,,33-300
        Olsztyn,,10-001 Opole,,45-001 Piła,,64-920 Płock,,09-400 Rzeszów,,35-001 Szczecin,,70-001
        Toruń,,87-100
        Wrocław,,50-001 Zielona_Góra,,65-001
        """,
    "pt": """
        Aveiro,,3800-123 Beja,,7800-045 Braga,,4700-312 Bragança,,5300-018 Cascais,,2750-301
        Coimbra,,3000-214
        Évora,,7000-503 Faro,,8000-119 Funchal,,9000-042 Guarda,,6300-660 Guimarães,,4800-412
        Leiria,,2400-123
        Porto,,4050-262 Santarém,,2000-221 Setúbal,,2900-314 Viseu,,3500-077 Tomar,,2300-540
        """,
    "el": """
        Βόλος,,38221 Ηράκλειο,,71201 Θεσσαλονίκη,,54624 Ιωάννινα,,45221 Καβάλα,,65302
        Καλαμάτα,,24133 Κέρκυρα,,49100
        Κοζάνη,,50131 Λάρισα,,41222 Λαμία,,35131 Ξάνθη,,67131 Πάτρα,,26221 Ρόδος,,85100
        Σέρρες,,62122 Τρίκαλα,,42131
        Χανιά,,73131
        """,
    "ja": """
        東京都渋谷区神宮前,,150-0001 大阪市北区梅田,,530-0001 京都市左京区吉田本町,,606-8501
        札幌市中央区北一条西,,060-0001
        福岡市博多区祇園町,,812-0038 横浜市中区山下町,,231-0023 仙台市青葉区本町,,980-0014
        名古屋市中区栄,,460-0008
        神戸市灘区六甲町,,657-0027 広島市南区的場町,,732-0824 金沢市香林坊,,920-0961
        松本市中央,,390-0811
        """,
    "zh": """
        上海市徐汇区,,200030 北京市海淀区,,100080 广州市天河区,,510630
        深圳市南山区,,518000 杭州市西湖区,,310012
        成都市武侯区,,610041 武汉市洪山区,,430070 南京市鼓楼区,,210008
        西安市雁塔区,,710061 苏州市姑苏区,,215000
        厦门市思明区,,361004 青岛市市南区,,266071
        """,
    "ko": """
        서울시_마포구,,04038 서울특별시_강남구,,06236 부산광역시_해운대구,,48094
        대구광역시_수성구,,42087
        인천광역시_부평구,,21389 광주광역시_북구,,61186 대전광역시_유성구,,34134
        경기도_수원시_팔달구,,16490
        전주시_완산구,,54994 제주시_연동,,63127
        """,
}
"""Towns by country or language as `name,region,postcode`."""

SHORT_TOWNS = {
    "ja": "渋谷区 梅田 札幌 福岡 横浜 仙台 名古屋 神戸 広島 金沢 松本 長崎 熊本 奈良",
    "zh": "徐汇 海淀 天河区 深圳 杭州 成都 武汉 南京 西安 苏州 厦门 青岛 长沙 昆明",
    "ko": "마포 강남 해운대 대구 인천 광주 대전 수원 전주 제주 강릉 포항 성남 청주",
}
"""Towns as people mention them, where an address writes them otherwise."""

STREETS = {
    "en": """
        Acacia Alder Ashgrove Beechwood Birch Bluebell Bramble Bridge Broad Canal Castle Cedar
        Chapel
        Cherry Chestnut Church Clarence Coldharbour Cooper Copper_Beech Corporation Crescent_Hill
        Cromwell Dove Duke Elm Factory Fern Fleet Foundry Gladstone Glebe Grange Hawthorn High
        Hillcrest
        Holly Jubilee Juniper King Laburnum Larch Lilac Long_Meadow Lower_Mill Magnolia Maple Market
        Meadow Mill New North Oak Old_Post Orchard Park Pine Poplar Prospect Quarry Queen Railway
        Rectory River_Bend Rosewood Sandpiper School Silver South Spring Station Sycamore Tannery
        Victoria Walnut Water Well Willow Windmill Wren
        """,
    "de": """
        Ahornweg Am_Alten_Markt Am_Bahnhof Amselweg An_der_Linde Auf_dem_Hügel Bachgasse
        Bahnhofstraße
        Bergstr. Birkenallee Brunnengasse Danziger_Str. Eichendorffstraße Feldstr. Gartenstraße
        Goethestr. Hauptstraße Heideweg Hinter_der_Kirche Im_Winkel Kirchplatz Kantstr. Lerchenweg
        Lindenstraße Marktplatz Mühlenweg Neue_Straße Rosenweg Sandkamp Schillerstr. Schulstraße
        Unter_den_Eichen Wiesengrund Zum_Sportplatz
        """,
    "fr": """
        rue_des_Lilas rue_de_la_Gare avenue_Victor_Hugo impasse_du_Moulin boulevard_Voltaire
        place_de_l'Église chemin_des_Vignes rue_Pasteur allée_des_Tilleuls quai_de_la_Loire
        rue_du_Four
        route_de_Paris rue_Jean_Jaurès cours_Lafayette sentier_des_Roses rue_du_8_mai_1945
        """,
    "es": """
        Calle_Mayor C/_de_la_Rosa Avda._de_la_Constitución Plaza_del_Sol Paseo_de_Gracia
        Calle_Cervantes
        C/_San_Juan Ronda_Norte Camino_Viejo Travesía_del_Olmo Calle_Real Gran_Vía C/_Goya
        Calle_Luna
        """,
    "it": """
        Via_Garibaldi Via_Roma Corso_Italia Piazza_Dante Viale_dei_Tigli Via_Mazzini Vicolo_Stretto
        Largo_Augusto Via_Verdi Via_XX_Settembre Strada_Vecchia Via_delle_Rose Via_San_Marco
        Via_Cavour
        """,
    "nl": """
        Kerkstraat Dorpsstraat Molenweg Schoolstraat Stationsplein Oude_Gracht Nieuwe_Rijn
        Beukenlaan
        Julianalaan Haven Weteringkade Achter_de_Dom Burgemeester_Vosstraat Zandpad
        Lange_Nieuwstraat
        """,
    "no": """
        Storgata Kirkeveien Skolegata Parkveien Bjørnstien Fjordgata Strandgaten Nygata
        Øvre_Bakklandet
        Solbakken Granlia Torvet Trollveien Prinsens_gate Nedre_Slottsgate
        """,
    "pl": """
        ul._Kwiatowa ul._Lipowa ul._Długa al._Jana_Pawła_II ul._Polna ul._3_Maja pl._Wolności
        ul._Mickiewicza ul._Szkolna os._Słoneczne ul._Wrzosowa ul._Krótka ul._Sienkiewicza
        """,
    "pt": """
        Rua_das_Flores Av._da_Liberdade Travessa_do_Carmo Largo_da_Sé Rua_Direita Praça_da_República
        Rua_de_Santa_Catarina Beco_do_Sol Estrada_Nacional_10 Rua_25_de_Abril Calçada_da_Glória
        """,
    "el": """
        Ερμού Πατησίων Αγίου_Δημητρίου Τσιμισκή Κολοκοτρώνη Μιαούλη
        Ελ._Βενιζέλου Ακαδημίας Ρήγα_Φεραίου
        """,
    "zh": """
        漕溪北路 中关村大街 天河北路 科技园路 文三路 人民南路 珞喻路
        中山路 长安街 平江路 解放路 建设二路
        """,
    "ko": """
        양화로 테헤란로 해운대로 동대구로 부평대로 용봉로 대학로 정조로 백제대로 연북로 월드컵북로
        """,
}
"""Streets by language, as they are written before or after the number."""
