"""Short passages about people who do not exist: raw text for the tests of text mode."""

import random

FIRST = ["Ilse", "Bram", "Odette", "Tomas", "Signe", "Pavel", "Greta", "Anselm", "Mirela", "Joost"]
LAST = ["Varnhagen", "Okkerse", "Delorme", "Hrubec", "Lindqvist", "Sokol", "Amsel", "Brandt", "Ionescu", "Terlinden"]
TOWNS = ["Marbeck", "Oostvoorne", "Lisieux", "Telsen", "Visby", "Olomouc", "Husum", "Ulm", "Sibiu", "Damme"]
WORK = ["mended clocks", "carved oars", "printed almanacs", "kept bees", "forged bells", "bound books", "blew glass"]
FINDS = ["a silver comet", "a sealed letter", "a drowned chapel", "an iron harp", "a map of salt mines", "a blind owl"]


def passages(count: int, seed: int) -> list[str]:
    """Passages of some 45 words."""
    drawn, texts = random.Random(seed), []
    for number in range(count):
        first, last, town, other = FIRST[number % 10], drawn.choice(LAST), *drawn.sample(TOWNS, 2)
        year, boats = drawn.randint(1610, 1890), drawn.randint(12, 97)
        work, find, friend = drawn.choice(WORK), drawn.choice(FINDS), drawn.choice(LAST)
        texts.append(
            f"{first} {last} came to {town} in {year} and {work} in a yard behind the mill. When the river froze, "
            f"{boats} boats from {other} lay at the quay, and under the last of them {first} found {find}. Old "
            f"{friend} would not believe it until he had walked out on the ice himself."
        )
    return texts
