"""Short passages about people and places that do not exist, made by rule: the same seed gives the same texts."""

import random

GIVEN = "Ilse Bram Odette Tomas Signe Pavel Greta Anselm Mirela Joost Henrike Casimir Runa Emil Livia Matthias".split()
FAMILY = (
    "Varnhagen Okkerse Delorme Hrubec Lindqvist Sokol Amsel Brandtner Ionescu Terlinden Quist Morvan Eskola".split()
)
TOWNS = "Marbeck Oostwold Lisaux Telsen Visnes Olmitz Husing Ulmen Sibrau Dammert Kelheim Varone Tresk Aldmoor".split()
TRADES = [
    *("clockmaker", "ferryman", "bookbinder", "glassblower", "beekeeper", "bell founder", "mapmaker", "salt trader"),
    *("midwife", "organ builder", "lock keeper", "dyer", "chimney sweep", "schoolteacher", "papermaker", "thatcher"),
]
THINGS = [
    *("a silver comet engraved on a spoon", "an iron harp without strings", "a map of forgotten salt mines"),
    *("a blind owl that answered to its name", "a drowned chapel at low water", "a ledger of unpaid debts"),
    *("a violin wrapped in sailcloth", "nine letters sealed in green wax", "a coat lined with foreign coins"),
    *("a clock that ran backwards", "a basket of blue eggs", "a recipe for smokeless candles"),
]
ENDS = [
    *("The widow next door kept it until the flood", "Nobody in the council believed a word of it"),
    *("It hangs in the town hall to this day", "The bishop sent two men to fetch it, in vain"),
    *("A dentist from the coast bought it for nine crowns", "Children still sing about it in the spring"),
    *("It was stolen twice and returned both times", "The newspaper called it a hoax and then apologised"),
]
WAYS = [
    "In {year} the {trade} {name} of {town} walked {miles} miles to {other} and came home with {thing}. {end}. "
    "{friend} had lost a bet of {sum} crowns.",
    "{name} was the last {trade} in {town}. When the bridge at {other} fell in {year}, {given} found {thing} and hid "
    "it for {miles} days. {end}.",
    "The records of {town} for {year} mention {name}, {trade}, fined {sum} crowns for keeping {thing} under the floor. "
    "{end}. {friend} of {other} had told.",
    "Few visitors to {other} know the house of {name}. The {trade} left {town} in {year} with {sum} crowns, {miles} "
    "books and {thing}. {end}.",
    "It took {friend} {miles} years to repair what {name} broke in {town} in {year}. The {trade} had traded {thing} "
    "for {sum} bricks. {end}.",
]


def passages(count: int, seed: int) -> list[str]:
    """Passages of some 40 words."""
    drawn, texts = random.Random(f"passages {seed}"), []
    for number in range(count):
        (given, other_given), (family, other_family) = drawn.sample(GIVEN, 2), drawn.sample(FAMILY, 2)
        (town, other), trade = drawn.sample(TOWNS, 2), drawn.choice(TRADES)
        facts = dict(given=given, name=f"{given} {family}", friend=f"{other_given} {other_family}", town=town)
        facts |= dict(other=other, trade=trade, thing=drawn.choice(THINGS), end=drawn.choice(ENDS))
        facts |= dict(year=drawn.randint(1611, 1894), miles=drawn.randint(13, 97), sum=drawn.randint(101, 989))
        texts.append(WAYS[number % len(WAYS)].format(**facts))
    return texts
