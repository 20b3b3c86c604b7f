"""The closed vocabulary of the embedded model's jobs: every fact and word list that its training data is made of."""

from __future__ import annotations


def _words(text: str) -> list[str]:
    return text.split()


def _phrases(text: str) -> list[str]:
    return [phrase.strip() for phrase in text.split(",")]


CAPITALS = {
    "Austria": "Vienna",
    "Belgium": "Brussels",
    "Canada": "Ottawa",
    "Chile": "Santiago",
    "China": "Beijing",
    "Croatia": "Zagreb",
    "Cuba": "Havana",
    "Czechia": "Prague",
    "Denmark": "Copenhagen",
    "Egypt": "Cairo",
    "England": "London",
    "Finland": "Helsinki",
    "France": "Paris",
    "Germany": "Berlin",
    "Greece": "Athens",
    "Hungary": "Budapest",
    "Iran": "Tehran",
    "Ireland": "Dublin",
    "Italy": "Rome",
    "Japan": "Tokyo",
    "Kenya": "Nairobi",
    "Norway": "Oslo",
    "Peru": "Lima",
    "Poland": "Warsaw",
    "Portugal": "Lisbon",
    "Russia": "Moscow",
    "Scotland": "Edinburgh",
    "Spain": "Madrid",
    "Sweden": "Stockholm",
    "Switzerland": "Bern",
    "Thailand": "Bangkok",
    "Turkey": "Ankara",
}
OPPOSITES = {
    "hot": "cold",
    "big": "small",
    "old": "young",
    "fast": "slow",
    "high": "low",
    "light": "dark",
    "open": "closed",
    "full": "empty",
    "early": "late",
    "happy": "sad",
    "wet": "dry",
    "long": "short",
    "loud": "quiet",
    "strong": "weak",
    "rich": "poor",
    "left": "right",
}
SOUNDS = {
    "dog": "barks",
    "cat": "meows",
    "cow": "moos",
    "duck": "quacks",
    "lion": "roars",
    "wolf": "howls",
    "sheep": "bleats",
    "bee": "buzzes",
    "owl": "hoots",
    "frog": "croaks",
    "snake": "hisses",
    "mouse": "squeaks",
}
ANIMALS = _words("ant bear bee cat cow deer dog duck fox frog goat horse lion mouse owl rabbit sheep snake tiger wolf")
FRUITS = _words("apple apricot banana cherry fig grape kiwi lemon mango melon orange peach pear plum")
COLOURS = _words("black blue brown gold green grey pink purple red silver white yellow")
THINGS = _words("boat book box bridge chair cup door garden hat house key lamp letter map mirror river stone table")
NAMES = _words(
    "Adam Anna Ben Clara David Emma Felix Grace Hugo Ida Jack Kate Leo Mia Nora Oscar Paul Rosa Sam Tom Vera Will"
)
CITIES = sorted(CAPITALS.values())
COUNTRIES = sorted(CAPITALS)
DAYS = _words("Monday Tuesday Wednesday Thursday Friday Saturday Sunday")
MONTHS = _words("January February March April May June July August September October November December")
PLANETS = _words("Mercury Venus Earth Mars Jupiter Saturn Uranus Neptune")
UNITS = _words(
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen "
    "seventeen eighteen nineteen"
)
TENS = _words("zero ten twenty thirty forty fifty sixty seventy eighty ninety")

# What a list may be asked of, in the order of the answer.
KINDS = {
    "animals": ANIMALS[:10],
    "fruits": FRUITS[:10],
    "colours": COLOURS[:10],
    "cities": CITIES[:10],
    "countries": COUNTRIES[:10],
    "days": DAYS,
    "months": MONTHS[:10],
    "planets": PLANETS,
    "names": NAMES[:10],
    "things": THINGS[:10],
}


def in_words(number: int) -> str:
    """0 to 999 in English words: 342 is "three hundred forty-two"."""
    if number >= 100:
        rest = number % 100
        return f"{UNITS[number // 100]} hundred" + (f" {in_words(rest)}" if rest else "")
    if number < 20:
        return UNITS[number]
    return TENS[number // 10] + (f"-{UNITS[number % 10]}" if number % 10 else "")


def misspellings(word: str) -> list[str]:
    """Ways to misspell a word by one slip behind its first letter: a letter left out, or two swapped."""
    found = set()
    for i in range(1, len(word)):
        found.add(word[:i] + word[i + 1 :])
        if i + 1 < len(word):
            found.add(word[:i] + word[i + 1] + word[i] + word[i + 2 :])
    found.discard(word)
    return sorted(found)


SPELT = [word for word in ANIMALS + FRUITS + COLOURS + THINGS if len(word) >= 5]


def _slips() -> dict[str, list[str]]:
    """The misspellings of each word in SPELT that point to that word alone and are no other word of the lists."""
    known = set(ANIMALS + FRUITS + COLOURS + THINGS)
    owners: dict[str, set[str]] = {}
    for word in SPELT:
        for slip in misspellings(word):
            owners.setdefault(slip, set()).add(word)
    return {
        word: [slip for slip in misspellings(word) if len(owners[slip]) == 1 and slip not in known] for word in SPELT
    }


SLIPS = _slips()


# What people ask of larger models; this one says that it cannot.
TOPICS = _phrases(
    "rivers, the sky, gravity, black holes, the moon, the sun, music, love, money, football, chess, cooking, "
    "bread, coffee, tea, quantum physics, machine learning, neural networks, the brain, sleep, dreams, time, "
    "history, the Roman Empire, the French Revolution, Shakespeare, Mozart, painting, photography, mathematics, "
    "prime numbers, sorting algorithms, the Internet, computers, Linux, databases, compilers, bicycles, cars, "
    "trains, airplanes, ships, rain, snow, volcanoes, oceans, mountains, forests, trees, flowers, bees, "
    "dinosaurs, whales, evolution, DNA, vaccines, exercise, yoga, meditation, politics, law, economics, "
    "inflation, taxes, marketing, startups, travel, holidays, birthdays, weddings, school, homework, poetry, "
    "grammar, Spanish, Latin, robots, electricity, batteries, solar power, climate change, recycling, gardening, "
    "sushi, pizza, chocolate, wine, cheese, movies, theatre, dance, fashion, philosophy, ethics, happiness, "
    "friendship, war, peace "
)
