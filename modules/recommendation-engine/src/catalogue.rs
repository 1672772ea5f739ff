//! The catalogue with what was learned about it: how much of each theme an item has.

/// Themes: coffee, tea, desk, computers, sport, camping, books, writing.
pub(crate) const FACTORS: usize = 8;

/// Name and factors in hundredths; an item's id is its place.
pub(crate) const ITEMS: [(&str, [u8; FACTORS]); 32] = [
    ("espresso machine", [82, 4, 6, 8, 10, 12, 3, 5]),
    ("coffee grinder", [89, 11, 2, 4, 6, 8, 10, 12]),
    ("milk frother", [85, 7, 9, 11, 2, 4, 6, 8]),
    ("coffee beans", [92, 3, 5, 7, 9, 11, 2, 4]),
    ("tea kettle", [8, 90, 12, 3, 5, 7, 9, 11]),
    ("green tea", [4, 86, 8, 10, 12, 3, 5, 7]),
    ("teapot", [11, 82, 4, 6, 8, 10, 12, 3]),
    ("mug", [87, 64, 11, 2, 4, 6, 8, 10]),
    ("desk lamp", [3, 5, 87, 9, 11, 2, 4, 6]),
    ("office chair", [10, 12, 83, 5, 7, 9, 11, 2]),
    ("standing desk", [6, 8, 90, 67, 3, 5, 7, 9]),
    ("monitor arm", [2, 4, 86, 63, 10, 12, 3, 5]),
    ("mechanical keyboard", [9, 11, 2, 84, 6, 8, 10, 12]),
    ("mouse", [5, 7, 9, 91, 2, 4, 6, 8]),
    ("headphones", [12, 3, 5, 87, 9, 11, 2, 4]),
    ("webcam", [8, 10, 12, 83, 5, 7, 9, 11]),
    ("running shoes", [4, 6, 8, 10, 92, 3, 5, 7]),
    ("rain jacket", [11, 2, 4, 6, 88, 65, 12, 3]),
    ("water bottle", [7, 9, 11, 2, 84, 61, 8, 10]),
    ("backpack", [3, 5, 7, 9, 91, 57, 4, 6]),
    ("tent", [10, 12, 3, 5, 7, 89, 11, 2]),
    ("sleeping bag", [6, 8, 10, 12, 3, 85, 7, 9]),
    ("camp stove", [2, 4, 6, 8, 10, 92, 3, 5]),
    ("head torch", [9, 11, 2, 4, 61, 88, 10, 12]),
    ("novel", [5, 7, 9, 11, 2, 4, 86, 8]),
    ("cookbook", [67, 3, 5, 7, 9, 11, 82, 4]),
    ("notebook", [8, 10, 67, 3, 5, 7, 9, 91]),
    ("fountain pen", [4, 6, 8, 10, 12, 3, 5, 87]),
    ("ink", [11, 2, 4, 6, 8, 10, 12, 83]),
    ("atlas", [7, 9, 11, 2, 4, 61, 88, 10]),
    ("chess set", [3, 5, 7, 9, 11, 2, 84, 6]),
    ("jigsaw puzzle", [10, 12, 3, 5, 7, 9, 91, 2]),
];

/// An item's factors, 0 to 1.
pub(crate) fn factors(item: usize) -> [f32; FACTORS] {
    ITEMS[item].1.map(|hundredths| f32::from(hundredths) / 100.0)
}
