"""Pseudonyms: short invented names that say nothing about age, gender, origin or character."""

NAMES = tuple(
    """Abrel Adwin Alvo Amrel Ansil Arden Arvel Asten Avel Bairn Belan Bennol Birrel Boden Braya Brisk Calder Carro
    Cavin Cerin Corin Cobry Dacil Dalen Darro Delwin Dorin Draven Edrel Elwy Embrel Enlow Erlan Esrin Everin
    Fallon Farrin Fenno Ferrel Finlo Galen Garro Gavrin Gellan Gorrin Halden Harlo Havin Hollin Idrin Illan
    Imrel Ivrin Jarrel Jassin Jorlan Jovin Kalen Karro Kelvo Kerrin Kirrel Lannis Larkel Lenno Lerrin Lorin
    Lowen Marvo Marrin Melvo Merrin Morrel Navin Nellan Nerrin Nollo Norrel Odrin Ollin Orlan Orrel Ovin Pavo
    Pellin Perrin Quarro Quillan Rallo Rennick Rillan Rowlin Sabin Sallo Savrel Serrin Sorrel Tallin Tarro Tavin
    Tellan Torrin Udrin Ullo Ulvin Vallo Varrin Vellan Vorrel Wallin Warro Welvin Wynno Yarrin Yellan Yorrel
    Zallo Zarrin Zellan""".split()
)
