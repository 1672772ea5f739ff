//! The currencies that are accepted, with the digits that ISO 4217 gives their minor units.

/// A currency.
pub(crate) struct Currency {
    pub(crate) code: &'static str,
    /// Digits after the point: 2 where 100 cents are a unit, 0 where there is nothing smaller.
    pub(crate) digits: u32,
    /// Fixed part of a fee, in minor units.
    pub(crate) fixed_fee: u64,
}

impl Currency {
    /// So many whole units, in minor ones.
    pub(crate) fn minor(&self, major: u64) -> u64 {
        major * 10_u64.pow(self.digits)
    }
}

const fn currency(code: &'static str, digits: u32, fixed_fee: u64) -> Currency {
    Currency {
        code,
        digits,
        fixed_fee,
    }
}

#[cfg(feature = "2.0.0")]
pub(crate) const ALL: [Currency; 4] = [
    currency("USD", 2, 30),
    currency("EUR", 2, 25),
    currency("GBP", 2, 20),
    currency("JPY", 0, 30),
];

#[cfg(not(feature = "2.0.0"))]
pub(crate) const ALL: [Currency; 6] = [
    currency("USD", 2, 30),
    currency("EUR", 2, 25),
    currency("GBP", 2, 20),
    currency("JPY", 0, 30),
    currency("CHF", 2, 30),
    currency("SEK", 2, 180),
];

/// The currency of a code, in upper case.
pub(crate) fn find(code: &str) -> Option<&'static Currency> {
    static KNOWN: &[Currency] = &ALL;
    KNOWN.iter().find(|currency| currency.code == code)
}
