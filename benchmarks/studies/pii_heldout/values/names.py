"""First names and surnames for each language, written for this package.

An underscore stands for a space. In scripts other than the Latin one, an entry is `native=Roman`.
"""

FIRST_NAMES = {
    "en": """
        Aaron Abigail Adele Adrian Aidan Alan Alice Alison Amelia Andrew Angela Anthony Ashley
        Audrey
        Barbara Beatrice Benjamin Bethany Bradley Brenda Brian Bridget Caleb Cameron Caroline
        Catherine
        Charlotte Chloe Clive Colin Connor Craig Cynthia Daniel Darren Deborah Declan Denise Derek
        Diane Dominic Donna Doreen Douglas Edith Edward Eileen Eleanor Elijah Elizabeth Ellen Emily
        Ethan Eunice Evelyn Fergus Fiona Frances Gareth Gary Geoffrey Georgia Gillian Gordon Graham
        Gwen Hannah Harriet Hazel Helen Henry Howard Hugh Ian Imogen Isaac Isabel Jacob Jacqueline
        Janet Jasmine Jason Jennifer Jeremy Jessica Joanne Jonathan Joshua Joyce Judith Julian Karen
        Katherine Keith Kelly Kenneth Kevin Kimberly Kyle Laura Lauren Leonard Leslie Liam Lindsay
        Lloyd Logan Lorraine Louise Lucy Malcolm Margaret Martin Matthew Maureen Megan Melissa
        Michael
        Michelle Miranda Molly Morgan Nancy Naomi Natalie Nathan Neil Niamh Nicola Nigel Noah Norman
        Oliver Oscar Pamela Patricia Patrick Paul Peter Philip Phoebe Priscilla Rachel Ralph Raymond
        Rebecca Richard Robert Roger Ronan Ronald Rosemary Russell Ruth Samantha Samuel Sandra Scott
        Shannon Sharon Shaun Sheila Shirley Simon Siobhan Sophie Stacey Stanley Stephen Stuart Susan
        Sylvia Tamsin Tara Theodore Theresa Thomas Timothy Tina Tracy Trevor Valerie Vanessa Vernon
        Veronica Victoria Vincent Wanda Warren Wayne Wendy William Yvonne Zachary Zoe
        Aisha Amir Ananya Arjun Chidi Deepak Farah Femi Imran Kavita Kwame Lakshmi Nadia Ngozi Omar
        Priya Rahul Sanjay Shreya Tariq Yusuf Zainab Dwayne Jamal Keisha Latoya Mary-Jane Jean-Paul
        """,
    "de": """
        Andreas Anke Annika Astrid Benedikt Birgit Bernd Carsten Christoph Claudia Detlef Dieter
        Dörte
        Elke Florian Franziska Friedrich Gerd Gisela Gudrun Günther Hannelore Heike Heinz Helga
        Holger
        Ilse Ingrid Jens Johannes Jörg Jürgen Jutta Karin Katrin Klaus Lukas Manfred Marlene
        Matthias
        Nadine Niklas Petra Rainer Renate Rüdiger Sabine Silke Steffen Svenja Swantje Tobias Traudl
        Ulrike Ursula Uwe Volker Wiebke Wolfgang Ayşe Mehmet Karl-Heinz Anna-Lena Hans-Peter
        """,
    "fr": """
        Adrien Agathe Aurélie Baptiste Benoît Brigitte Camille Cécile Chantal Christophe Clémence
        Corentin Damien Delphine Didier Élodie Émilie Étienne Fabrice Florence François Françoise
        Gaëlle Geneviève Gérard Guillaume Hélène Hervé Jérôme Joëlle Laurent Léa Loïc Lucie Manon
        Mathilde Maxime Mireille Nathalie Noémie Océane Odile Pascal Pierrick Quentin Rémi Sandrine
        Solène Stéphane Sylvie Thibault Thierry Valentin Véronique Virginie Yannick Jean-Luc Karim
        Marie-Claire Anne-Sophie
        """,
    "es": """
        Adrián Alejandra Álvaro Amparo Andrés Ángeles Beatriz Begoña Carlos Carmen Concepción
        Cristóbal
        Diego Dolores Eduardo Encarna Enrique Esperanza Estrella Fernando Gonzalo Guadalupe Hugo
        Ignacio
        Inmaculada Isabel Iván Javier Jimena Joaquín Lourdes Macarena Manuel Mar Marisol Mercedes
        Miguel
        Montserrat Nieves Nuria Pablo Paloma Paz Pilar Ramón Raúl Remedios Rocío Rodrigo Rosario
        Salvador Santiago Sergio Sol Soledad Ximena José_Luis María_José Juan_Carlos
        """,
    "it": """
        Alessandro Alessia Antonella Beatrice Bruna Carlo Chiara Cinzia Claudio Cristina Dario
        Davide
        Donatella Elisa Enzo Fabio Federica Filippo Fiorella Francesca Gabriele Gaia Giacomo
        Gianluca
        Ginevra Giorgia Giovanni Giulia Giuseppe Ilaria Lorenzo Luca Lucrezia Marcello Matteo
        Mirella
        Nicolò Ornella Paola Pasquale Pietro Raffaella Riccardo Roberta Rocco Salvatore Serena
        Silvia
        Simona Stefano Tommaso Umberto Valentina Vincenzo Viola Maria_Grazia Pier_Paolo
        """,
    "nl": """
        Anneke Annelies Arjen Bart Bas Bram Coen Cornelis Daan Dirk Els Esmee Femke Floor Fleur
        Gerrit
        Gijs Hanneke Harm Henk Ilse Ineke Jaap Jan Jelle Jeroen Jolanda Joost Joris Kees Koen Lieke
        Lotte
        Maaike Marijke Marloes Martijn Mieke Nienke Noor Pieter Puck Rens Roos Ruud Saskia Sanne
        Sjoerd
        Sterre Stijn Teun Thijs Truus Wim Willemijn Wouter Yara Fatima
        """,
    "no": """
        Anders Ane Arne Asbjørn Astrid Berit Bjørn Bjørg Brage Dag Eirik Eivind Frode Gro Gudrun
        Gunnar
        Guro Håkon Halvor Hanne Hege Hilde Ingeborg Ingvild Ivar Jorunn Kåre Kari Kjell Kjersti Knut
        Lars Liv Magnhild Magnus Marit Odd Øystein Øyvind Ola Ragnhild Roar Sigrid Sindre Sissel
        Solveig
        Stein Svein Synnøve Tone Torbjørn Torunn Tor Trond Unni Vegard Vigdis Åse Åge Anne-Lise
        """,
    "pl": """
        Agnieszka Aleksandra Andrzej Bartosz Beata Bogdan Bożena Cezary Damian Danuta Dariusz Dorota
        Elżbieta Ewa Filip Franciszek Grażyna Grzegorz Halina Hanna Irena Jacek Jadwiga Jakub
        Jarosław
        Jerzy Joanna Justyna Kamil Katarzyna Kazimierz Krystyna Krzysztof Łukasz Maciej Magdalena
        Małgorzata Marcin Marek Mateusz Michał Mirosława Nina Paweł Piotr Przemysław Radosław Róża
        Sławomir Stanisław Szymon Tomasz Urszula Wanda Wiesław Wojciech Zbigniew Zofia Żaneta
        """,
    "pt": """
        Adelaide Afonso Alberto Ana Anabela António Armando Aurora Benedita Bernardo Bruna Caetano
        Catarina Célia Clara Conceição Diogo Duarte Edson Eduarda Fátima Fernanda Filipa Flávio
        Francisca
        Gaspar Gonçalo Graça Helena Henrique Inês Joana João Joaquim Jorge Leonor Lourenço Luísa
        Luzia
        Mafalda Márcia Margarida Martim Matilde Miguel Natália Nuno Paulo Rafaela Renata Ricardo
        Rita
        Rodrigo Rui Salvador Sofia Susana Teresa Tiago Vasco Vera Zulmira
        """,
    "el": """
        Αθανάσιος=Athanasios Αικατερίνη=Aikaterini Αλέξανδρος=Alexandros Αναστασία=Anastasia
        Ανδρέας=Andreas Αντώνης=Antonis Βασιλική=Vasiliki Γεωργία=Georgia Γιάννης=Giannis
        Γιώργος=Giorgos Δέσποινα=Despina Δημήτρης=Dimitris Ειρήνη=Eirini Ελένη=Eleni
        Ευαγγελία=Evangelia Θανάσης=Thanasis Θεοδώρα=Theodora Ιωάννα=Ioanna Κατερίνα=Katerina
        Κώστας=Kostas Λευτέρης=Lefteris Μαρία=Maria Μιχάλης=Michalis Νίκος=Nikos Ξένια=Xenia
        Παναγιώτης=Panagiotis Πέτρος=Petros Σοφία=Sofia Σπύρος=Spyros Σταύρος=Stavros Τάσος=Tasos
        Φωτεινή=Foteini Χρήστος=Christos Χρύσα=Chrysa
        """,
    "ja": """
        愛=Ai 明美=Akemi 彩香=Ayaka 大輔=Daisuke 栄子=Eiko 花子=Hanako
        陽菜=Haruna 春樹=Haruki 大翔=Hiroto
        博=Hiroshi 純一=Junichi 香織=Kaori 和也=Kazuya 健太=Kenta 浩二=Koji 真由美=Mayumi 恵=Megumi
        美咲=Misaki 直樹=Naoki 直子=Naoko 亮=Ryo 遼太=Ryota 桜=Sakura 翔=Sho 翔太=Shota 拓也=Takuya
        達也=Tatsuya 智子=Tomoko 洋介=Yosuke 陽子=Yoko 優子=Yuko 結衣=Yui
        裕太=Yuta ゆかり=Yukari さくら=Sakura
        """,
    "zh": """
        伟=Wei 芳=Fang 娜=Na 敏=Min 静=Jing 丽=Li 强=Qiang 磊=Lei 洋=Yang 艳=Yan 勇=Yong 杰=Jie
        建国=Jianguo 秀英=Xiuying 桂兰=Guilan 志强=Zhiqiang 晓明=Xiaoming 晓燕=Xiaoyan 雨桐=Yutong
        子涵=Zihan 浩然=Haoran 欣怡=Xinyi 梓轩=Zixuan 思远=Siyuan 文博=Wenbo
        海燕=Haiyan 国庆=Guoqing
        春花=Chunhua 明月=Mingyue 佳琪=Jiaqi 家豪=Jiahao 淑芬=Shufen
        """,
    "ko": """
        민준=Minjun 서연=Seoyeon 지훈=Jihoon 지우=Jiwoo 하늘=Haneul 영희=Younghee 철수=Cheolsu
        현우=Hyunwoo 수진=Sujin 미경=Mikyung 은지=Eunji 동현=Donghyun 유진=Yujin 성민=Sungmin
        혜진=Hyejin 정호=Jungho 소영=Soyoung 태영=Taeyoung 보람=Boram 나래=Narae 예은=Yeeun
        재현=Jaehyun 경숙=Kyungsook 상훈=Sanghoon 가영=Gayoung 다은=Daeun
        """,
}
"""First names by language."""

SURNAMES = {
    "en": """
        Abbott Adair Ainsworth Allard Anderson Appleby Archer Ashdown Atkinson Bagshaw Barlow
        Barrett
        Baxter Beckett Bellamy Bennett Blackwood Blythe Boothroyd Bradshaw Brennan Briggs Burrows
        Butterworth Callaghan Cartwright Chadwick Chambers Clegg Clifford Colby Connolly Corrigan
        Coulson Cranston Crowther Cunningham Dalton Davenport Davies Delaney Dempsey Dixon Donovan
        Draper Dunmore Eastwood Eccles Edmonds Ellery Entwistle Evans Fairclough Fallon Farrell
        Fielding
        Fitzgerald Fletcher Fraser Gallagher Garside Gibbons Gilchrist Goddard Goodwin Greenhalgh
        Griffiths Hadley Haigh Hargreaves Harrington Hathaway Hawthorne Henshaw Hewitt Higgins
        Holloway
        Hopkins Horrocks Hughes Hutchinson Ingham Jarvis Jenkins Jennings Johnson Kavanagh Keating
        Kendrick Kershaw Langford Lawson Lockwood Lomax MacLeod MacKenzie Maddox Marlow Marsden
        McAllister McBride McCarthy McGuire McIntyre Mercer Merrick Metcalfe Middleton Mitchell
        Moran
        Mortimer Murphy Nesbitt Newton Nicholls Norris O'Brien O'Connor O'Donnell O'Neill Ogden
        Ollerenshaw Openshaw Osborne Pargeter Parkinson Pemberton Pickering Plunkett Prescott
        Pritchard
        Quigley Quinn Radcliffe Ramsbottom Redfern Renshaw Rigby Roberts Rowbotham Saunders
        Schofield
        Seymour Sheridan Shufflebottom Sinclair Slater Smith Southworth Spencer Stanhope Sutcliffe
        Tattersall Thackeray Thornton Tillotson Trelawney Turnbull Underhill Unsworth Vaughan
        Wainwright
        Walmsley Warburton Weatherby Whitaker Whitworth Wilkinson Williams Winterbottom Woolley
        Yardley
        Adeyemi Ahmed Banerjee Begum Chaudhry Desai Okafor Okonkwo Mensah Patel Rahman Shah Siddiqui
        Singh Gutierrez Washington Van_Buren St._John Lloyd-Jones Parker-Hale
        """,
    "de": """
        Ackermann Bachmeier Baumgärtner Becker Behrens Böhm Brandt Dreher Ebersbach Eichhorn
        Engelhardt
        Fährmann Feldmann Fleischer Friedrichs Fuchs Gerlach Großmann Hartwig Haußmann Hofstetter
        Holtkamp Jäger Kaltenbach Kirchhoff Klein Kleinschmidt Köhler König Kowalke Krüger Lange
        Lindemann Löffler Maier Möllering Neumann Oberländer Petersen Pfeiffer Rademacher Reuter
        Richter
        Rosenthal Rothenburg Sauer Schäfer Schmitz Schönfeld Schreiber Schröder Schulze Schwarz
        Seidel Sommer Stein Steinhauer Thiele Vogel Vogt Wagner Weiß Wiegand Winkler Wolff
        Zimmermann
        von_Arnsberg Yılmaz Müller-Lüdenscheidt
        """,
    "fr": """
        Arnaud Aubert Barbier Beaumont Berger Blanchard Blanc Bonnet Boucher Boulanger Bourgeois
        Brun
        Carpentier Charpentier Chevalier Colin Cordier Delacroix Delmas Deschamps Dubois Dufour
        Dupuis
        Fabre Faure Fontaine Fournier Gaillard Garnier Gauthier Girard Guérin Hubert Lacroix Lambert
        Langlois Leclerc Lefèvre Legrand Lemaire Leroux Marchand Martel Mercier Meunier Moreau
        Moulin Noël Page Pelletier Perrin Petit Picard Poirier Renard Rivière Roche Rousseau Roux
        Royer Vasseur Vidal Villeneuve de_La_Tour Le_Goff Benali
        """,
    "es": """
        Aguilar Alonso Álvarez Arroyo Ballesteros Benítez Blanco Bravo Caballero Cabrera Calderón
        Campos Cano Carrasco Castaño Castillo Cordero Cortés Crespo Delgado Domínguez Escudero
        Espinosa
        Ferrer Flores Fuentes Gallardo Garrido Guerrero Gutiérrez Herrera Hidalgo Iglesias Izquierdo
        León Lozano Marín Medina Méndez Montero Moreno Moya Navarro Núñez Olivares Ortega Pascual
        Peña
        Ramírez Redondo Rey Ríos Rojas Rubio Salas Santos Serrano Soler Torres Vargas Vega Vicente
        de_la_Cruz de_la_Fuente
        """,
    "it": """
        Amato Barbieri Basile Battaglia Bellini Benedetti Bianchi Bruno Caputo Caruso Cattaneo
        Colombo
        Conti Coppola Costa Croce D'Amico D'Angelo De_Luca De_Santis Del_Vecchio Di_Stefano Esposito
        Fabbri Farina Ferrara Fiore Fontana Forte Galli Gatti Gentile Giordano Grassi Greco Grillo
        Guerra Leone Lombardi Longo Mancini Marchetti Marino Martinelli Messina Milani Montanari
        Monti
        Moretti Napolitano Negri Orlando Pace Palumbo Parisi Pellegrini Ricci Rinaldi Rizzo Romano
        Rossetti Sala Sartori Serra Sorrentino Valente Villa Vitale
        """,
    "nl": """
        Bakker de_Boer van_den_Berg Blom Boersma de_Bruijn Brouwer van_Dam van_Dijk Dekker
        van_der_Heijden
        Hendriks Hoekstra de_Graaf de_Groot Groen Haan Hofman in_'t_Veld Jansen Jonker de_Jong Kok
        Koster
        Kramer Kuiper van_Leeuwen van_der_Linden Meijer van_der_Meer Molenaar Mulder Postma Prins
        Ruiter Schipper Schouten Smit Timmermans van_Vliet Veenstra Verhoeven Vermeulen Visser
        de_Vries van_der_Wal Willems Wolters Zijlstra ter_Horst 't_Hart Slager El_Amrani
        """,
    "no": """
        Aas Amundsen Andersen Bakke Berg Bjerke Brekke Dahl Dalen Eide Ellingsen Engen Eriksen Fjeld
        Foss
        Gulbrandsen Haga Hagen Halvorsen Hansen Haugen Helland Hovland Iversen Jørgensen Kvam
        Kristoffersen
        Lie Lien Lund Løken Martinsen Moen Myhre Næss Nygård Olsen Rønning Ruud Sandvik Skaar
        Solberg
        Solheim Strand Stokke Sæther Thorsen Tveit Vik Ødegård Østby Aasen
        """,
    "pl": """
        Adamczyk Baran Bąk Błaszczyk Borkowski Cieślak Czarnecki Dąbrowska Duda Dudek Gajewska
        Głowacki
        Górecka Grabowski Jabłońska Jankowski Jasińska Kaczmarek Kania Kamiński Kołodziej Kowalczyk
        Kozłowska Kruk Kubiak Kwiatkowska Lis Maciejewski Majewska Malinowski Mazur Michalak Mróz
        Nowak
        Ostrowska Pawlak Piątek Pietrzak Przybylska Sikora Sobczak Sokołowski Stępień Szczepaniak
        Szymańska Tomaszewski Urbańska Walczak Wieczorek Wilk Witkowska Włodarczyk Wróbel Zając
        Zieliński
        Żak Nowak-Kania
        """,
    "pt": """
        Abreu Almeida Alves Amaral Antunes Azevedo Barbosa Barros Batista Borges Brito Cabral
        Cardoso
        Carneiro Carvalho Castro Coelho Correia Cruz Cunha Domingues Duarte Esteves Faria Figueiredo
        Fonseca Freitas Gouveia Guerreiro Leal Leitão Lobo Lopes Macedo Machado Magalhães Marques
        Matos
        Melo Mendes Monteiro Moreira Neves Nogueira Nunes Oliveira Pacheco Pinheiro Pinto Queirós
        Ramos
        Reis Ribeiro Rocha Sampaio Saraiva Silveira Simões Teixeira Valente Vieira da_Silva
        dos_Santos
        """,
    "el": """
        Αγγελόπουλος=Angelopoulos Αλεξίου=Alexiou Αναγνώστου=Anagnostou Βασιλείου=Vasileiou
        Βλάχος=Vlachos Γεωργίου=Georgiou Δημητρίου=Dimitriou Ζαφειρίου=Zafeiriou Ιωαννίδης=Ioannidis
        Καραγιάννη=Karagianni Κουτσούκης=Koutsoukis Κωνσταντίνου=Konstantinou Λάμπρου=Lamprou
        Μακρής=Makris Μαυρίδης=Mavridis Νικολάου=Nikolaou Οικονόμου=Oikonomou Παπαδάκη=Papadaki
        Παπαδοπούλου=Papadopoulou Παππάς=Pappas Σαμαράς=Samaras Σταθόπουλος=Stathopoulos
        Τσιρώνη=Tsironi Φωτίου=Fotiou Χατζής=Chatzis
        """,
    "ja": """
        青木=Aoki 石川=Ishikawa 井上=Inoue 上田=Ueda 岡田=Okada 小川=Ogawa
        加藤=Kato 木村=Kimura 小林=Kobayashi
        斎藤=Saito 佐々木=Sasaki 清水=Shimizu 鈴木=Suzuki 高橋=Takahashi
        田中=Tanaka 中村=Nakamura 西村=Nishimura
        野口=Noguchi 橋本=Hashimoto 原=Hara 林=Hayashi 東=Higashi
        藤田=Fujita 松本=Matsumoto 三浦=Miura 森=Mori
        山口=Yamaguchi 山田=Yamada 吉田=Yoshida 渡辺=Watanabe
        """,
    "zh": """
        王=Wang 李=Li 张=Zhang 刘=Liu 陈=Chen 杨=Yang 黄=Huang 赵=Zhao
        周=Zhou 吴=Wu 徐=Xu 孙=Sun 马=Ma
        朱=Zhu 胡=Hu 郭=Guo 何=He 高=Gao 林=Lin 罗=Luo 梁=Liang 宋=Song
        郑=Zheng 谢=Xie 唐=Tang 许=Xu 邓=Deng
        冯=Feng 韩=Han 曹=Cao 欧阳=Ouyang 司马=Sima
        """,
    "ko": """
        김=Kim 이=Lee 박=Park 최=Choi 정=Jung 강=Kang 조=Cho 윤=Yoon
        장=Jang 임=Lim 한=Han 오=Oh 서=Seo 신=Shin
        권=Kwon 황=Hwang 안=Ahn 송=Song 유=Yoo 홍=Hong 고=Ko 문=Moon 남궁=Namgung
        """,
}
"""Surnames by language."""

WORD_FIRST_NAMES = """
    Will Grace Rose Mark May June April Summer Hope Faith Joy Dawn Bill Frank Jack Art Drew Chase
    Hunter
    Mason Dale Glen Reed Ray Skye Ivy Olive Violet Daisy Penny Ruby Pearl Amber Jade Crystal Sandy
    Robin
    Jay Wren Heath Cliff Rusty Rocky Miles Max Victor Christian Norm Pat Sue Rob Nick Jean Gene
    Carol
    Melody Autumn Holly Heather Iris Lily Basil Rich Ernest Angel Patience Constance Prudence
    Charity
    Ginger Brandy Sage Forest River Brook Clay Flint Colt Lance Pierce Grant Bob Guy Harry Josh Mike
    Tony Wade Ford Dean Earl Duke Major Sterling Royal
    """
"""English first names that are also words."""

WORD_SURNAMES = """
    Park White Young King Long Short Black Brown Green Gray Day Knight Bishop Baker Cook Fisher
    Hunter
    Carpenter Mason Field Hill Wood Woods Stone Rivers Lake Brook Banks Bush Rose Bell Book Page
    Price
    Rice Lamb Wolf Fox Crane Swan Finch Bird Drake Strong Small Little Power Love Best Good Case
    Cash
    Church Castle Court Street Lane Bridges Ford Marsh Frost Snow Winter Summers March Noon Friday
    Payne
    Sharp Wise Moody Savage Gamble Waters Pool Singer Porter Butler Marshall Major Pope Abbot Monk
    Dean
    Chance Hope Fair Bright Speed Moon Starr Berry Bean Pepper Salt Sugar Peacock
    """
"""English surnames that are also words."""

SHORT_NAMES = {
    "William": ("Will", "Bill", "Billy"),
    "Elizabeth": ("Liz", "Beth", "Lizzie"),
    "Katherine": ("Kat", "Kate", "Kathy"),
    "Catherine": ("Cath", "Cat", "Cathy"),
    "Margaret": ("Maggie", "Meg", "Peg"),
    "Michael": ("Mike", "Mick", "Mikey"),
    "Robert": ("Rob", "Bob", "Bobby"),
    "Richard": ("Rich", "Dick", "Ricky"),
    "Thomas": ("Tom", "Tommy"),
    "Benjamin": ("Ben", "Benji"),
    "Jonathan": ("Jon", "Jonny"),
    "Theodore": ("Ted", "Theo"),
    "Victoria": ("Vicky", "Tori"),
    "Samantha": ("Sam", "Sammy"),
    "Zachary": ("Zach", "Zac"),
    "Patricia": ("Pat", "Trish"),
    "Francesca": ("Fra", "Franci"),
    "Agnieszka": ("Aga",),
    "Katarzyna": ("Kasia",),
    "Małgorzata": ("Gosia",),
    "Giuseppe": ("Beppe", "Peppe"),
    "Wolfgang": ("Wolle",),
    "Sabine": ("Bine",),
    "Ursula": ("Uschi",),
}
"""Short forms of first names."""
