//! What the demo's customers ask for, and what the right answer is.

use bytes::Bytes;
use http::StatusCode;

/// One kind of request with its right answer, reckoned here and not taken from any release.
#[derive(Clone, Debug)]
pub(crate) struct Payment {
    /// The request's body.
    pub(crate) body: Bytes,
    status: StatusCode,
    /// Text that a right answer has in it.
    contains: String,
    /// How often it comes, against the others.
    share: u32,
}

/// Cards whose issuers have no rates of their own: every release prices them alike.
const AMEX: &str = "3782 822463 10005";
const VISA: &str = "4111 1111 1111 1111";
const MASTERCARD: &str = "5105 1051 0510 5100";
const BLOCKED: &str = "4000 0000 0000 0002";

/// Of a thousand requests in Production so many are in yen. No other environment has any.
const YEN_PER_MILLE: u32 = 60;

impl Payment {
    fn authorised(share: u32, amount: u64, currency: &str, fixed_fee: u64, card: &str) -> Self {
        // 2.9 % and a fixed part, half a minor unit rounded up: the price list, not a release's code.
        let fee = (amount * 29 + 500) / 1_000 + fixed_fee;
        Self {
            body: body(amount, currency, card),
            status: StatusCode::CREATED,
            contains: format!(r#""currency":"{currency}","fee":{fee},"net":{}"#, amount - fee),
            share,
        }
    }

    fn declined(share: u32, amount: u64, currency: &str, card: &str, reason: &str) -> Self {
        Self {
            body: body(amount, currency, card),
            status: StatusCode::PAYMENT_REQUIRED,
            contains: format!(r#""{reason}""#),
            share,
        }
    }

    /// Whether an answer is the right one.
    pub(crate) fn is_right(&self, status: StatusCode, body: &[u8]) -> bool {
        let wanted = self.contains.as_bytes();
        status == self.status && body.windows(wanted.len()).any(|window| window == wanted)
    }
}

fn body(amount: u64, currency: &str, card: &str) -> Bytes {
    let cvc = if card == AMEX { "1234" } else { "123" };
    format!(
        r#"{{"amount":{amount},"currency":"{currency}","card":{{"number":"{card}","expiry":"12/30","cvc":"{cvc}"}}}}"#
    )
    .into()
}

/// The requests of an environment and how often each comes.
#[derive(Clone, Debug)]
pub(crate) struct Mix {
    payments: Vec<Payment>,
    shares: u32,
}

impl Mix {
    /// What comes everywhere: dollars, euros and pounds, and now and then a card that is declined.
    pub(crate) fn everywhere() -> Self {
        Self::of(vec![
            Payment::authorised(300, 1_999, "USD", 30, VISA),
            Payment::authorised(150, 25_000, "USD", 30, AMEX),
            Payment::authorised(200, 4_950, "EUR", 25, MASTERCARD),
            Payment::authorised(120, 120_000, "EUR", 25, VISA),
            Payment::authorised(150, 799, "GBP", 20, VISA),
            Payment::declined(20, 1_999, "EUR", BLOCKED, "card_declined"),
        ])
    }

    /// What only Production's customers send as well: payments in yen.
    pub(crate) fn production() -> Self {
        let mut payments = Self::everywhere().payments;
        payments.push(Payment::authorised(YEN_PER_MILLE, 12_800, "JPY", 30, VISA));
        Self::of(payments)
    }

    fn of(payments: Vec<Payment>) -> Self {
        let shares = payments.iter().map(|payment| payment.share).sum();
        Self { payments, shares }
    }

    /// The request that a draw below [`Mix::shares`] stands for.
    pub(crate) fn pick(&self, mut draw: u32) -> &Payment {
        for payment in &self.payments {
            if draw < payment.share {
                return payment;
            }
            draw -= payment.share;
        }
        &self.payments[0]
    }

    /// All shares together.
    pub(crate) fn shares(&self) -> u32 {
        self.shares
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_production_pays_in_yen() {
        let yen = |mix: &Mix| {
            (0..mix.shares())
                .filter(|&draw| mix.pick(draw).body.windows(3).any(|window| window == b"JPY"))
                .count()
        };
        assert_eq!(yen(&Mix::everywhere()), 0);
        assert_eq!(yen(&Mix::production()), YEN_PER_MILLE as usize);
    }

    #[test]
    fn an_answer_is_right_by_status_and_by_its_fee() {
        let payment = Payment::authorised(1, 1_999, "USD", 30, VISA);
        let answer =
            br#"{"id":"pay_1","status":"authorised","amount":1999,"currency":"USD","fee":88,"net":1911}"#;
        assert!(payment.is_right(StatusCode::CREATED, answer));
        assert!(!payment.is_right(StatusCode::OK, answer));
        assert!(!payment.is_right(StatusCode::CREATED, br#"{"currency":"USD","fee":87,"net":1912}"#));
    }
}
