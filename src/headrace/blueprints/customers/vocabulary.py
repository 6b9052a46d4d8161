"""What customers do, buy, and where they are: the words of the generator."""

from dataclasses import dataclass

import numpy as np

__all__ = ["CITIES", "EVENT_SHARES", "EVENT_TYPES", "PRODUCTS", "Product", "products"]

EVENT_TYPES = ("view", "add_to_cart", "remove_from_cart", "purchase", "return", "support_contact")
EVENT_SHARES = np.cumsum([0.62, 0.17, 0.05, 0.11, 0.02, 0.03])
CITIES = (
    "Berlin", "Paris", "London", "Madrid", "Rome", "Vienna", "Warsaw", "Prague", "Lisbon", "Oslo",
)  # fmt: skip
PRODUCTS = {
    "Electronics": (("laptop", 89_900), ("phone", 64_900), ("headphones", 12_900), ("camera", 45_000)),
    "Clothing": (("jacket", 8_900), ("jeans", 5_900), ("shirt", 2_900), ("shoes", 7_900)),
    "Home": (("lamp", 3_900), ("chair", 11_900), ("pan", 2_400), ("carpet", 15_900)),
    "Books": (("novel", 1_400), ("cookbook", 2_600), ("atlas", 3_900), ("textbook", 5_400)),
    "Sports": (("bicycle", 54_900), ("mat", 2_200), ("racket", 6_900), ("tent", 13_900)),
    "Beauty": (("perfume", 5_400), ("cream", 1_900), ("soap", 600), ("brush", 1_100)),
    "Toys": (("puzzle", 1_700), ("robot", 4_900), ("blocks", 3_400), ("doll", 2_700)),
}
"""Goods by category, and about what one costs, in cents."""
_OF_EACH = 3


@dataclass(frozen=True)
class Product:
    """One product."""

    identity: str
    category: str
    cents: int


def products() -> list[Product]:
    """Return everything that is sold."""
    return [
        Product(f"prod_{name}_{number:03d}", category, cents * (9 + number) // 10)
        for category, goods in PRODUCTS.items()
        for name, cents in goods
        for number in range(1, _OF_EACH + 1)
    ]
