//! Cards: shape, checksum, network, and what may be shown of them.

use serde::Deserialize;

/// A card as it is presented.
#[derive(Deserialize)]
pub(crate) struct Card {
    number: String,
    /// `MM/YY`.
    expiry: String,
    cvc: String,
}

/// The last digits of numbers that issuers keep for tests of a decline.
const BLOCKED_LAST: &str = "0002";

impl Card {
    /// What is wrong with it, if anything.
    pub(crate) fn check(&self) -> Result<(), &'static str> {
        let digits: Vec<u32> = self.digits().collect();
        let plain = self.number.bytes().all(|b| b.is_ascii_digit() || b == b' ');
        if !plain || !(12..=19).contains(&digits.len()) || luhn(&digits) != 0 {
            return Err("the card's number is wrong");
        }
        let month = self
            .expiry
            .split_once('/')
            .filter(|(_, year)| year.len() == 2 && year.parse::<u8>().is_ok());
        if !month.is_some_and(|(month, _)| month.parse::<u8>().is_ok_and(|month| (1..=12).contains(&month))) {
            return Err("the card's expiry must be MM/YY");
        }
        if !(3..=4).contains(&self.cvc.len()) || !self.cvc.bytes().all(|b| b.is_ascii_digit()) {
            return Err("the card's cvc must be 3 or 4 digits");
        }
        Ok(())
    }

    pub(crate) fn is_blocked(&self) -> bool {
        self.last_digits() == BLOCKED_LAST
    }

    /// The network and the last four digits: all that leaves the module.
    pub(crate) fn masked(&self) -> String {
        let network = match self.digits().next() {
            Some(3) => "amex",
            Some(4) => "visa",
            Some(2 | 5) => "mastercard",
            _ => "card",
        };
        format!("{network} *{}", self.last_digits())
    }

    /// The first six digits: they name the bank that issued it.
    #[cfg(feature = "2.2.0")]
    pub(crate) fn issuer(&self) -> u32 {
        self.digits().take(6).fold(0, |number, digit| number * 10 + digit)
    }

    fn digits(&self) -> impl Iterator<Item = u32> {
        self.number.chars().filter_map(|c| c.to_digit(10))
    }

    fn last_digits(&self) -> String {
        let count = self.digits().count();
        self.digits()
            .skip(count.saturating_sub(4))
            .filter_map(|digit| char::from_digit(digit, 10))
            .collect()
    }
}

/// The Luhn sum modulo 10; 0 for a number without a slip.
fn luhn(digits: &[u32]) -> u32 {
    let doubled = |digit: u32| if digit > 4 { digit * 2 - 9 } else { digit * 2 };
    let sum: u32 = digits
        .iter()
        .rev()
        .enumerate()
        .map(|(i, &digit)| if i % 2 == 1 { doubled(digit) } else { digit })
        .sum();
    sum % 10
}
