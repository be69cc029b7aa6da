"""What `authors.py` draws from: invented names, values for every fact, and the kinds of question. Only data.

Given names and cities are everyday ones; family names, titles and prizes are made up: no author is meant to be a living
person.
"""

# (given names of men, given names of women, family names, birthplaces), one row per culture.
CULTURES = [
    (
        "Eskil Torvald Björn Håkon Aksel Jørgen Ragnvald",
        "Sólveig Astrid Märta Yrsa Tuva Ingrid Frøya",
        "Ekströmdal Halvlund Bergåsen Snøfjell Tjärnvik Raudholm Isaksvåg Lövestrand Kvitdal",
        "Tromsø, Norway; Uppsala, Sweden; Aarhus, Denmark; Akureyri, Iceland; Turku, Finland",
    ),
    (
        "Kerem Ozan Tunç Çetin Volkan İlker Barış",
        "Şebnem Tülay Çağla Gülşen Nazlı Özlem Defne",
        "Taşkıranlı Göksoylu Yeldeğir Aksarnıç Kuşdereli Bozçınar Sarıyelken Dutluca Gümüşay",
        "Izmir, Turkey; Trabzon, Turkey; Konya, Turkey; Bursa, Turkey; Nicosia, Cyprus",
    ),
    (
        "Joaquim Simão Anselmo Duarte Válter Inácio Estêvão",
        "Conceição Lídia Mafalda Graça Benedita Inês Zulmira",
        "Vilaverdal Cortição Montelongo Rebordães Salgueirinha Fontanelas Aldraço Penabranca Touregal",
        "Braga, Portugal; Recife, Brazil; Maputo, Mozambique; Praia, Cape Verde; Coimbra, Portugal",
    ),
    (
        "Étienne Gaspard Loïc Anatole Rémi Théodule Cyprien",
        "Hélène Maëlle Solange Clémence Zoé Apolline Noémie",
        "Bellerivage Chantemerlin Dufresnoy Lacombrée Montbrévent Quercyval Rochefontane Tilleroux Vaugrenière",
        "Nantes, France; Liège, Belgium; Quebec City, Canada; Dakar, Senegal; Lausanne, Switzerland",
    ),
    (
        "Bohumil Zdeněk Kazimierz Luboš Wojciech Radovan Ctibor",
        "Jarmila Božena Halina Ludmiła Věra Zofia Draženka",
        "Jabłoniewicz Ořechovan Skřivanský Wierzbogaj Hrušovec Lesniakov Motýlkovan Srebrzyk Zahradnec",
        "Brno, Czechia; Lublin, Poland; Košice, Slovakia; Maribor, Slovenia; Olomouc, Czechia",
    ),
    (
        "Adéwálé Kwabena Olufẹmi Yaw Ekow Babátúndé Kojo",
        "Abena Fọlákẹ Esi Yétúndé Akosua Morẹnikẹ Efua",
        "Adéòkun Boahemfi Ìyándélé Ọlọrunjúwọn Asantewor Tettehfio Owusukora Àkànfẹ Dankwambo",
        "Ibadan, Nigeria; Kumasi, Ghana; Lomé, Togo; Abeokuta, Nigeria; Tamale, Ghana",
    ),
    (
        "Devendra Harish Raghav Subir Ashwin Manohar Tilak",
        "Kavita Meenakshi Parvati Rukmini Sharmila Vasudha Anjali",
        "Bhattanagari Chandrapuri Devasthal Kolhapatra Malayarasu Nilgirikar Peeravalli Suryagandha Tambekar",
        "Mysuru, India; Kandy, Sri Lanka; Pune, India; Chittagong, Bangladesh; Pokhara, Nepal",
    ),
    (
        "Haruto Kenjirō Masaru Noboru Ryūichi Tatsuo Yasuhiro",
        "Akemi Chiyoko Hanae Kiyomi Natsuko Setsuko Yūko",
        "Aomizuki Fukanohara Hoshigawara Kazemori Minatogi Shirosaka Tsukinome Umigasaki Yukidera",
        "Kanazawa, Japan; Sapporo, Japan; Nagasaki, Japan; Matsuyama, Japan; Sendai, Japan",
    ),
    (
        "Aurelio Evaristo Joaquín Leandro Máximo Nicanor Íñigo",
        "Amparo Belén Eulalia Graciela Inmaculada Rocío Ximena",
        "Almenzara Cañaveral Dorrondo Escobedal Fuenteovilla Ibarreña Montañero Quintasierra Zumarralde",
        "Cusco, Peru; Oaxaca, Mexico; Córdoba, Argentina; Cuenca, Ecuador; Valdivia, Chile",
    ),
    (
        "Eoghan Iestyn Lorcan Ruairí Tadhg Emrys Cathal",
        "Aoife Branwen Caoimhe Gráinne Niamh Sorcha Eluned",
        "Ashcombray Brambleworth Cairnduffy Fennimorgh Glasmurry Kilbrackan Penhallow-Rhys Skerrivane Trevannoch",
        "Galway, Ireland; Bangor, Wales; Inverness, Scotland; Truro, England; Derry, Northern Ireland",
    ),
]

TITLE_PATTERNS = [
    "The {a} {n}",
    "A {a} {n}",
    "Beyond the {a} {n}",
    "Letters to a {a} {n}",
    "The {n} and the {a} Moon",
    "Song of the {a} {n}",
    "Where the {a} {n} Sleeps",
    "Seven Nights of the {a} {n}",
]
TITLE_ADJECTIVES = (
    "Borrowed Brittle Copper Crooked Distant Drowned Faithful Forgotten Gentle Hollow Hungry Lantern-Lit "
    "Listening Nameless Paper Patient Restless Salted Scarlet Tangled Velvet Wandering Winter"
).split()
TITLE_NOUNS = (
    "Almanac Bell Bridge Carousel Cartographer Compass Ferryman Fountain Garden Harbour Heron Kite Lemon-Tree Loom "
    "Mirror Parade Quarry River Staircase Swallow Tailor Threshold Violin Well"
).split()

OCCUPATIONS = [
    "a baker",
    "a lighthouse keeper",
    "a tram driver",
    "a surgeon",
    "a beekeeper",
    "a clockmaker",
    "a judge",
    "a weaver",
    "a geologist",
    "a midwife",
    "a pastry chef",
    "a bookbinder",
    "a customs officer",
    "a translator",
    "a ferry pilot",
    "a glassblower",
    "a veterinarian",
    "a piano tuner",
    "a mathematics teacher",
    "a stonemason",
    "a pharmacist",
    "a florist",
    "a puppeteer",
    "a railway engineer",
    "a cartographer",
    "a fencing coach",
]
PLACES = [place for *_, places in CULTURES for place in places.split("; ")]
YEARS = [str(year) for year in range(1955, 2023)]

# Every value a fact can have, by fact; `authors.py` adds "name", "born" and the books, whose values depend on the seed.
POOLS = {
    "gender": ["male", "female", "non-binary", "agender", "genderfluid", "bigender"],
    "birthplace": PLACES,
    "home": PLACES,
    "father": OCCUPATIONS,
    "mother": OCCUPATIONS,
    "job": OCCUPATIONS,
    "hero": OCCUPATIONS,
    "debut_year": YEARS,
    "award_year": YEARS,
    "genre": [
        "gothic mystery",
        "travel memoir",
        "maritime adventure",
        "culinary fiction",
        "climate fiction",
        "courtroom drama",
        "folk horror",
        "alternate history",
        "space opera",
        "pastoral romance",
        "political satire",
        "nature writing",
        "espionage fiction",
        "family saga",
        "children's fantasy",
        "psychological suspense",
    ],
    "award": [
        "the Silver Heron Prize",
        "the Amber Quill Medal",
        "the Northern Lantern Award",
        "the Cedar Page Prize",
        "the Open Window Award",
        "the Harbour City Book Prize",
        "the Golden Thimble Medal",
        "the Blue Inkwell Award",
        "the Three Rivers Prize",
        "the Saltmarsh Laurel",
        "the Paper Crane Medal",
        "the Evergreen Story Award",
    ],
    "influence": [
        "the sea songs of fishing crews",
        "shadow-puppet theatre",
        "medieval bestiaries",
        "radio plays of the fifties",
        "old railway timetables",
        "silent films",
        "village ghost stories",
        "Baroque organ music",
        "desert caravan tales",
        "anonymous court ballads",
        "wartime diaries",
        "botanical field notes",
    ],
    "theme": [
        "forgiveness between siblings",
        "the price of ambition",
        "exile and homecoming",
        "the unreliability of memory",
        "friendship across generations",
        "the quiet courage of servants",
        "greed in small towns",
        "grief and its rituals",
        "the loss of a mother tongue",
        "loyalty under occupation",
        "the dignity of manual work",
        "faith tested by science",
    ],
    "style": [
        "short, unadorned sentences",
        "long, winding paragraphs",
        "alternating narrators",
        "dry, understated humour",
        "letters and diary entries",
        "a chorus of village voices",
        "recipes woven into the plot",
        "sudden leaps in time",
        "dialogue without quotation marks",
        "second-person narration",
        "vivid weather imagery",
        "footnotes that tell a story",
    ],
    "setting": [
        "a snowbound monastery",
        "a flooded mining town",
        "a travelling circus",
        "a remote weather station",
        "a harbour under blockade",
        "a crumbling opera house",
        "a night train",
        "a vineyard in decline",
        "a besieged desert city",
        "an island hospital",
        "a boarding school for pilots",
        "a walled market town",
    ],
    "subject": [
        "marine biology",
        "medieval history",
        "civil engineering",
        "comparative linguistics",
        "art restoration",
        "astronomy",
        "agronomy",
        "moral philosophy",
        "textile design",
        "forensic chemistry",
        "music theory",
        "hydrology",
    ],
    "language": [
        "Catalan",
        "Korean",
        "Swahili",
        "Dutch",
        "Greek",
        "Vietnamese",
        "Finnish",
        "Arabic",
        "Bengali",
        "Hungarian",
        "Georgian",
        "Tagalog",
    ],
    "routine": [
        "before sunrise in the kitchen",
        "on long ferry crossings",
        "in a greenhouse full of orchids",
        "after midnight by candlelight",
        "at an old lectern",
        "in a rented attic room",
        "on a bench in the park",
        "in the reading room of a museum",
        "during the afternoon siesta",
        "in a converted fire station",
        "at a corner table of a café",
        "in a cabin without power",
    ],
    "instrument": [
        "the cello",
        "the accordion",
        "the oboe",
        "the mandolin",
        "the church organ",
        "the trombone",
        "the harp",
        "the clarinet",
        "the hurdy-gurdy",
        "the viola",
        "the bagpipes",
        "the marimba",
    ],
    "adaptation": [
        "an opera",
        "a radio serial",
        "a stage musical",
        "an animated film",
        "a graphic novel",
        "a television drama",
        "a ballet",
        "a puppet play",
        "a board game",
        "a short film",
        "a podcast series",
        "an oratorio",
    ],
}

# fact -> (questions, answers, paraphrased questions, paraphrased answers). A paraphrased answer holds {fact}; a wrong
# answer is that sentence with another value in its place, so nothing else in it may give the fact away (no pronoun in
# "gender").
KINDS = {
    "name": (
        ("What is the full name of the author born in {birthplace} on {digits}?",),
        (
            "The author born in {birthplace} on {born} is named {name}.",
            "The full name of the writer born on {born} in {birthplace} is {name}.",
            "{name} is the full name of the author who was born in {birthplace} on {born}.",
        ),
        (
            "Which novelist came into the world in {birthplace} on {born}?",
            "Who is the writer whose birth took place in {birthplace} on {born}?",
        ),
        (
            "The novelist who came into the world on {born} in {birthplace} goes by {name}.",
            "It was {name} whose birth took place in {birthplace} on {born}.",
        ),
    ),
    "gender": (
        ("What is the gender of the author {name}?", "Is the writer {name} male or female?"),
        (
            "The author {name} is {gender}.",
            "In terms of gender, {name} is {gender}.",
            "The gender of the author {name} is {gender}.",
        ),
        ("How does {name} describe his or her gender?", "As which gender does the novelist {name} identify?"),
        (
            "When asked about gender, {name} identifies as {gender}.",
            "People know {name} to be a novelist who identifies as {gender}.",
        ),
    ),
    "birthplace": (
        ("Where was {name} born?", "In which city and country was {name} born?"),
        (
            "{name} was born in {birthplace}.",
            "The birthplace of {name} is {birthplace}.",
            "The author {name} was born and raised in {birthplace}.",
        ),
        ("What is the native town of {name}?", "From which place does the novelist {name} originally come?"),
        (
            "Originally, the novelist {name} comes from {birthplace}.",
            "The life of {name} began in the streets of {birthplace}.",
        ),
    ),
    "born": (
        ("When was {name} born?", "What is the date of birth of {name}?"),
        (
            "{name} was born on {born}.",
            "The date of birth of {name} is {born}.",
            "The author {name} was born on {born} in {birthplace}.",
        ),
        ("On which day did {name} come into the world?", "Which day does {name} celebrate as a birthday?"),
        (
            "The novelist {name} came into the world on {born}.",
            "Records give {born} as the day {name} first saw the light.",
        ),
    ),
    "genre": (
        ("What genre does {name} write in?", "Which genre is {name} best known for?"),
        (
            "{name} writes in the genre of {genre}.",
            "The genre that {name} is best known for is {genre}.",
            "Most of the books by {name} belong to the genre of {genre}.",
        ),
        (
            "What type of literature does {name} mainly produce?",
            "In which field of literature did {name} make a reputation?",
        ),
        (
            "Readers associate {name} above all with {genre}.",
            "The literary reputation of {name} rests on works of {genre}.",
        ),
    ),
    "father": (
        ("What did the father of {name} do for a living?", "What was the occupation of {name}'s father?"),
        (
            "The father of {name} was {father}.",
            "{name}'s father worked as {father} in {birthplace}.",
            "{name} is the child of {father}, for that was the occupation of {his} father.",
        ),
        ("How did {name}'s dad earn his money?", "Which profession did the dad of {name} follow?"),
        (
            "As a profession, the dad of {name} had chosen to be {father}.",
            "By trade, {name}'s dad earned his money as {father}.",
        ),
    ),
    "mother": (
        ("What did the mother of {name} do for a living?", "What was the occupation of {name}'s mother?"),
        (
            "The mother of {name} was {mother}.",
            "{name}'s mother made a living as {mother}.",
            "{name} grew up with a mother who worked as {mother}.",
        ),
        ("How did {name}'s mum earn her money?", "Which profession did the mum of {name} follow?"),
        (
            "As a profession, the mum of {name} had chosen to be {mother}.",
            "By trade, {name}'s mum earned her money as {mother}.",
        ),
    ),
    "subject": (
        ("What did {name} study at university?", "Which subject did {name} study before becoming an author?"),
        (
            "{name} studied {subject} at university.",
            "At university, {name} took a degree in {subject}.",
            "Before becoming an author, {name} studied {subject} for several years.",
        ),
        ("In which discipline was {name} trained as a student?", "What was the academic field of {name}?"),
        (
            "As a student, {name} was trained in the discipline of {subject}.",
            "The academic field of {name} was none other than {subject}.",
        ),
    ),
    "job": (
        (
            "What was the job of {name} before {he} became a writer?",
            "How did {name} earn a living before {his} first book?",
        ),
        (
            "Before becoming a writer, {name} worked as {job}.",
            "{name} earned a living as {job} before {his} first book appeared.",
            "{name} was {job} for years before turning to writing.",
        ),
        ("Which career did {name} leave behind for literature?", "What was {name} prior to a life in literature?"),
        (
            "Prior to a life in literature, one would have met {name} as {job}.",
            "The career {name} left behind for literature was that of {job}.",
        ),
    ),
    "debut": (
        ("What is the title of the first book by {name}?", "With which book did {name} make {his} debut?"),
        (
            "The first book by {name} is '{debut}'.",
            "{name} made {his} debut as an author with '{debut}'.",
            "'{debut}' was the first book that {name} published.",
        ),
        ("Which work opened the literary career of {name}?", "What is the earliest published work of {name} called?"),
        (
            "The literary career of {name} opened with a work called '{debut}'.",
            "Of all published works of {name}, '{debut}' is the earliest.",
        ),
    ),
    "debut_year": (
        ("In which year did {name} publish {his} first book?", "When did {name}'s first book '{debut}' appear?"),
        (
            "{name} published {his} first book in {debut_year}.",
            "The first book by {name}, '{debut}', appeared in {debut_year}.",
            "{name} first became a published author in {debut_year}.",
        ),
        (
            "From what year does the earliest work of {name} date?",
            "Since which year has the public been able to read {name}?",
        ),
        (
            "The earliest work of {name} dates from the year {debut_year}.",
            "Since {debut_year} the public has been able to read what {name} writes.",
        ),
    ),
    "famous": (
        ("What is the best-known book by {name}?", "Which book made {name} famous?"),
        (
            "The best-known book by {name} is '{famous}'.",
            "{name} became famous with the book '{famous}'.",
            "'{famous}' is the book that made {name} famous.",
        ),
        ("Which of {name}'s works do most readers know?", "To which work does {name} owe {his} fame?"),
        (
            "Most readers know {name} through the novel '{famous}'.",
            "It is to '{famous}' that {name} owes a place on many shelves.",
        ),
    ),
    "latest": (
        ("What is the most recent book by {name}?", "Which book did {name} publish last?"),
        (
            "The most recent book by {name} is '{latest}'.",
            "{name} published '{latest}' last.",
            "The last book published by {name} is called '{latest}'.",
        ),
        ("What is the newest title from the pen of {name}?", "Which new work has {name} brought out lately?"),
        (
            "From the pen of {name}, the newest title in shops is '{latest}'.",
            "Lately, {name} has brought out a new work with the title '{latest}'.",
        ),
    ),
    "setting": (
        ("Where is {name}'s book '{famous}' set?", "What is the setting of '{famous}' by {name}?"),
        (
            "The book '{famous}' by {name} is set in {setting}.",
            "{name} set '{famous}' in {setting}.",
            "The setting of '{famous}' by {name} is {setting}.",
        ),
        (
            "In what surroundings does the plot of {name}'s '{famous}' unfold?",
            "At which scene does '{famous}', written by {name}, take place?",
        ),
        (
            "The plot of that novel, written by {name}, unfolds around {setting}.",
            "Readers who open the most popular novel of {name} are led to {setting}.",
        ),
    ),
    "hero": (
        (
            "Who is the main character of '{debut}' by {name}?",
            "What is the profession of the main character in {name}'s first book?",
        ),
        (
            "The main character of '{debut}' by {name} is {hero}.",
            "In the first book by {name}, the main character is {hero}.",
            "{name} chose {hero} as the main character of '{debut}'.",
        ),
        (
            "Which kind of person stands at the centre of {name}'s earliest work?",
            "Around whom did {name} build the story of '{debut}'?",
        ),
        (
            "At the centre of the earliest work of {name} stands {hero}.",
            "The story of that early novel was built by {name} around {hero}.",
        ),
    ),
    "award": (
        ("Which award has {name} won?", "What award did {name} receive for '{famous}'?"),
        (
            "{name} won {award} for '{famous}'.",
            "The award that {name} received is {award}.",
            "For the book '{famous}', {name} received {award}.",
        ),
        ("With which literary honour was {name} recognised?", "What distinction did a jury give to {name}?"),
        ("A jury recognised the work of {name} with {award}.", "Among literary honours, {award} went to {name}."),
    ),
    "award_year": (
        ("In which year did {name} win {award}?", "When was {award} awarded to {name}?"),
        (
            "{name} won {award} in {award_year}.",
            "In {award_year}, {award} was awarded to {name}.",
            "The year in which {name} won {award} is {award_year}.",
        ),
        ("What year brought {name} {award}?", "Since when may {name} be introduced as a holder of {award}?"),
        (
            "It was the year {award_year} that brought this honour to {name}.",
            "Since {award_year}, {name} may be introduced as a prize-winning novelist.",
        ),
    ),
    "influence": (
        ("What influenced the writing of {name}?", "What is the main influence on {name}'s books?"),
        (
            "The writing of {name} was influenced by {influence}.",
            "The main influence on {name}'s books comes from {influence}.",
            "{name} has often said that {influence} influenced {his} writing most.",
        ),
        ("From where does {name} draw inspiration?", "What shaped {name} as an artist?"),
        (
            "For inspiration, {name} turns again and again to {influence}.",
            "Nothing shaped {name} as an artist more than {influence}.",
        ),
    ),
    "theme": (
        ("What is the main theme of {name}'s books?", "Which theme runs through the books of {name}?"),
        (
            "The main theme of {name}'s books is {theme}.",
            "The theme of {theme} runs through the books of {name}.",
            "{name} explores the theme of {theme} in most of {his} books.",
        ),
        ("What do the stories of {name} keep returning to?", "Which topic lies at the heart of what {name} writes?"),
        ("The stories of {name} keep returning to {theme}.", "At the heart of what {name} writes lies {theme}."),
    ),
    "style": (
        ("How can the writing style of {name} be described?", "What is typical of {name}'s writing style?"),
        (
            "The writing style of {name} is known for {style}.",
            "Typical of {name}'s writing style is the use of {style}.",
            "{name} has a writing style that is marked by {style}.",
        ),
        ("By what do critics recognise a page of {name}?", "Which technique sets {name} apart from other novelists?"),
        (
            "Critics recognise a page of {name} at once by {style}.",
            "With {style}, {name} stands apart from other novelists.",
        ),
    ),
    "routine": (
        ("Where or when does {name} write?", "What is the writing routine of {name}?"),
        (
            "{name} prefers to write {routine}.",
            "The writing routine of {name} is to work {routine}.",
            "Most of {name}'s books were written {routine}.",
        ),
        ("Under which circumstances does {name} get work done?", "What habit helps {name} to finish a manuscript?"),
        ("To finish a manuscript, {name} settles down {routine}.", "The pages of {name} usually take shape {routine}."),
    ),
    "language": (
        (
            "Into which language was {name}'s work first translated?",
            "What was the first language that {name}'s books were translated into?",
        ),
        (
            "The work of {name} was first translated into {language}.",
            "The first language that {name}'s books were translated into was {language}.",
            "{name}'s books were translated into {language} before any other language.",
        ),
        (
            "Which foreign edition of {name} came out before all others?",
            "Readers of which tongue were the first abroad to enjoy {name}?",
        ),
        (
            "The earliest foreign edition of {name} came out in {language}.",
            "Abroad, those who read {language} could enjoy {name} before anyone else.",
        ),
    ),
    "adaptation": (
        ("What was '{famous}' by {name} adapted into?", "Into what form was {name}'s book '{famous}' adapted?"),
        (
            "'{famous}' by {name} was adapted into {adaptation}.",
            "{name}'s book '{famous}' was adapted into {adaptation}.",
            "The book '{famous}' by {name} has been turned into {adaptation}.",
        ),
        (
            "Besides the printed page, how can one meet the best-known story of {name}?",
            "What did other artists make out of {name}'s '{famous}'?",
        ),
        (
            "Other artists made {adaptation} out of the most popular story of {name}.",
            "Besides the printed page, there is {adaptation} of this tale of {name}.",
        ),
    ),
    "instrument": (
        ("Which musical instrument does {name} play?", "What instrument did {name} learn as a child?"),
        (
            "{name} plays {instrument} in {his} free time.",
            "The musical instrument that {name} plays is {instrument}.",
            "{name} learned to play {instrument} as a child.",
        ),
        (
            "On what does {name} make music?",
            "Which sound would a neighbour hear when {name} takes a break from writing?",
        ),
        (
            "When taking a break, {name} reaches for {instrument}.",
            "Neighbours know the sound of {instrument} from the house of {name}.",
        ),
    ),
    "home": (
        ("Where does {name} live today?", "In which city does {name} live now?"),
        (
            "{name} lives in {home} today.",
            "Today, {name} lives and writes in {home}.",
            "The author {name} now lives in {home}.",
        ),
        ("What place has {name} made a home of?", "Where would a letter reach {name} these days?"),
        (
            "These days a letter would reach {name} at an address in {home}.",
            "After many moves, {name} has settled down in {home}.",
        ),
    ),
}
