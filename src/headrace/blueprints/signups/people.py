"""Made-up people of twelve countries, in the shape of the randomuser API; the same seed makes the same ones.

Shape: the answers of version 1.4 of that API. Nobody here exists: the names are common ones, the mail goes to
`example` domains (RFC 2606), and the pictures are paths of a host that is none.
"""

from __future__ import annotations

import hashlib
import random
import uuid
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

__all__ = ["NATIONS", "page_of_people", "person"]

_FIRST_DAY = datetime(2002, 1, 1, tzinfo=UTC)
_LAST_DAY = datetime(2025, 12, 31, tzinfo=UTC)
_BORN_FIRST = datetime(1945, 1, 1, tzinfo=UTC)
_BORN_LAST = datetime(2003, 12, 31, tzinfo=UTC)
_DOMAINS = ("example.com", "example.net", "example.org", "mail.example", "post.example")
_DOMAIN_SHARES = (50, 20, 15, 10, 5)
_STREETS = ("High Street", "Mill Lane", "Station Road", "Park Avenue", "Church Street", "River Walk")


@dataclass(frozen=True)
class Nation:
    """What people of a country have: names, places (city, state), the signs of a postcode and a phone.

    In `postcode` and `phone`, # is a digit and @ a letter.
    """

    code: str
    country: str
    share: int
    men: str
    women: str
    families: str
    places: tuple[tuple[str, str], ...]
    postcode: str
    phone: str
    streets: tuple[str, ...] = _STREETS


NATIONS = (
    Nation(
        "US", "United States", 20, "James Robert Michael David", "Mary Linda Patricia Karen",
        "Smith Johnson Brown Davis Miller", (("Austin", "Texas"), ("Portland", "Oregon"), ("Dayton", "Ohio")),
        "#####", "(###) ###-####",
    ),
    Nation(
        "GB", "United Kingdom", 12, "Oliver Harry George Jack", "Amelia Olivia Emily Isla",
        "Taylor Wilson Evans Walker Wright", (("Leeds", "West Yorkshire"), ("Bath", "Somerset")),
        "@@# #@@", "01### ######",
    ),
    Nation(
        "DE", "Germany", 10, "Lukas Jonas Felix Paul", "Anna Lea Marie Lena",
        "Müller Schmidt Weber Fischer Koch", (("Köln", "Nordrhein-Westfalen"), ("Jena", "Thüringen")),
        "#####", "0###-#######", ("Hauptstraße", "Gartenweg", "Am Markt", "Lindenallee"),
    ),
    Nation(
        "FR", "France", 10, "Louis Hugo Jules Arthur", "Jade Louise Emma Chloé",
        "Martin Bernard Dubois Moreau Laurent", (("Lyon", "Rhône"), ("Nantes", "Loire-Atlantique")),
        "#####", "0#-##-##-##-##", ("Rue de l'Église", "Avenue des Tilleuls", "Place du Marché"),
    ),
    Nation(
        "ES", "Spain", 8, "Hugo Mateo Pablo Álvaro", "Lucía Sofía Carmen Paula",
        "García López Sánchez Romero Díaz", (("Sevilla", "Andalucía"), ("Bilbao", "País Vasco")),
        "#####", "9##-###-###", ("Calle Mayor", "Calle del Sol", "Avenida de la Paz"),
    ),
    Nation(
        "BR", "Brazil", 8, "Miguel Arthur Heitor Davi", "Alice Laura Helena Júlia",
        "Silva Santos Oliveira Souza Lima", (("Recife", "Pernambuco"), ("Curitiba", "Paraná")),
        "#####-###", "(##) ####-####", ("Rua das Flores", "Avenida Brasil", "Rua do Porto"),
    ),
    Nation(
        "IN", "India", 8, "Aarav Vivaan Arjun Rohan", "Ananya Diya Priya Kavya",
        "Sharma Patel Reddy Gupta Nair", (("Pune", "Maharashtra"), ("Kochi", "Kerala")),
        "######", "8#########", ("M. G. Road", "Station Road", "Lake View Road"),
    ),
    Nation(
        "NO", "Norway", 5, "Jakob Emil Noah Oskar", "Nora Emma Ella Ingrid",
        "Hansen Johansen Olsen Larsen Berg", (("Bergen", "Vestland"), ("Bodø", "Nordland")),
        "####", "########", ("Storgata", "Kirkeveien", "Bjørkelia"),
    ),
    Nation(
        "AU", "Australia", 6, "William Noah Thomas Lachlan", "Charlotte Mia Grace Ruby",
        "Jones Williams Kelly Thompson White", (("Hobart", "Tasmania"), ("Cairns", "Queensland")),
        "####", "0#-####-####",
    ),
    Nation(
        "CA", "Canada", 6, "Liam Ethan Logan Samuel", "Zoe Chloe Hannah Alice",
        "Roy Tremblay Campbell Fraser Clark", (("Halifax", "Nova Scotia"), ("Regina", "Saskatchewan")),
        "@#@ #@#", "###-###-####",
    ),
    Nation(
        "TR", "Turkey", 4, "Yusuf Eymen Ömer Mert", "Zeynep Elif Defne Ada",
        "Yılmaz Kaya Demir Çelik Şahin", (("İzmir", "Ege"), ("Bursa", "Marmara")),
        "#####", "(###)-###-####", ("Atatürk Caddesi", "Cumhuriyet Caddesi"),
    ),
    Nation(
        "NZ", "New Zealand", 3, "Leo Jack Lucas Nikau", "Isla Ruby Aria Mila",
        "Harris Walker Hall Cooper King", (("Nelson", "Tasman"), ("Napier", "Hawke's Bay")),
        "####", "(###)-###-####",
    ),
)  # fmt: skip
_SHARES = [nation.share for nation in NATIONS]


def page_of_people(seed: str, page: int, results: int) -> dict[str, Any]:
    """Return what the API answers: `results` people of page `page`, which begins at 1."""
    first = (page - 1) * results
    return {
        "results": [person(seed, number) for number in range(first, first + results)],
        "info": {"seed": seed, "results": results, "page": page, "version": "1.4"},
    }


def person(seed: str, number: int) -> dict[str, Any]:
    """Return one user; who it is depends on the seed and the number alone."""
    digest = hashlib.sha256(f"{seed}:{number}".encode()).digest()
    chance = random.Random(digest)  # noqa: S311 - repeatable, not secret
    nation = chance.choices(NATIONS, _SHARES)[0]
    gender = chance.choice(("female", "male"))
    first = chance.choice((nation.women if gender == "female" else nation.men).split())
    last = chance.choice(nation.families.split())
    city, state = chance.choice(nation.places)
    plain = f"{first}.{last}".lower().encode("ascii", "ignore").decode().strip(".") or "user"
    username = f"{chance.choice(('blue', 'quick', 'happy', 'tiny', 'golden'))}{first.lower()}{number}"
    born, registered = _day(chance, _BORN_FIRST, _BORN_LAST), _day(chance, _FIRST_DAY, _LAST_DAY)
    kind, picture = ("women" if gender == "female" else "men"), chance.randrange(100)
    return {
        "gender": gender,
        "name": {"title": "Ms" if gender == "female" else "Mr", "first": first, "last": last},
        "location": {
            "street": {"number": chance.randint(1, 9999), "name": chance.choice(nation.streets)},
            "city": city,
            "state": state,
            "country": nation.country,
            "postcode": _signs(chance, nation.postcode),
            "coordinates": {
                "latitude": f"{chance.uniform(-90, 90):.4f}",
                "longitude": f"{chance.uniform(-180, 180):.4f}",
            },
            "timezone": {"offset": f"{chance.randint(-11, 12):+d}:00", "description": city},
        },
        "email": f"{plain}{number}@{chance.choices(_DOMAINS, _DOMAIN_SHARES)[0]}",
        "login": {
            "uuid": str(uuid.UUID(bytes=digest[:16], version=4)),
            "username": username,
            "password": "",
            "salt": digest[16:20].hex(),
            "md5": "",
            "sha1": "",
            "sha256": "",
        },
        "dob": {"date": _iso(born), "age": 2026 - born.year},
        "registered": {"date": _iso(registered), "age": 2026 - registered.year},
        "phone": _signs(chance, nation.phone),
        "cell": _signs(chance, nation.phone),
        "id": {"name": "", "value": None},
        "picture": {
            size: f"https://pictures.example/{path}{kind}/{picture}.jpg"
            for size, path in (("large", ""), ("medium", "med/"), ("thumbnail", "thumb/"))
        },
        "nat": nation.code,
    }


def _day(chance: random.Random, first: datetime, last: datetime) -> datetime:
    return first + timedelta(milliseconds=chance.randrange(int((last - first).total_seconds() * 1000)))


def _iso(moment: datetime) -> str:
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _signs(chance: random.Random, pattern: str) -> str:
    made = (
        str(chance.randrange(10))
        if sign == "#"
        else chance.choice("ABCDEFGHJKLMNPRSTVWXY")
        if sign == "@"
        else sign
        for sign in pattern
    )
    return "".join(made)
