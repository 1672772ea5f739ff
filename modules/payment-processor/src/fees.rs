//! Fees: 2.9 % and a fixed part, half a minor unit rounded up.

use crate::card::Card;
use crate::currency::Currency;

/// In thousandths.
const RATE: u64 = 29;

/// The fee in minor units; nothing where the amount is beyond reckoning.
pub(crate) fn fee(amount: u64, currency: &Currency, _card: &Card) -> Option<u64> {
    let share = amount.checked_mul(RATE)?.checked_add(500)? / 1000;
    share.checked_add(currency.fixed_fee)
}
