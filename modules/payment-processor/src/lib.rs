//! Takes card payments: checks the card, prices the payment, authorises or declines it.
//!
//! `POST /payments`, `GET /payments/health`, `GET /payments/currencies`; since 2.1.0 `POST /payments/quote`.

mod card;
mod currency;
#[cfg_attr(feature = "2.2.0", path = "fees_2_2_0.rs")]
mod fees;

use std::cell::Cell;

use hotswap_guest::{Request, Response, fingerprint};
use serde::{Deserialize, Serialize};

use card::Card;
use currency::Currency;

hotswap_guest::serve!(handle);

/// Above this many major units a payment is declined: nobody has set a higher limit for the card.
const AUTHORISED_MAJOR_MAX: u64 = 20_000;

thread_local! {
    /// Payments that this instance has seen; a part of their ids.
    static SEEN: Cell<u64> = const { Cell::new(0) };
}

#[derive(Deserialize)]
struct Payment {
    /// In minor units (cents; whole yen).
    amount: u64,
    currency: String,
    card: Card,
}

#[derive(Serialize)]
struct Answer<'a> {
    id: String,
    status: &'a str,
    amount: u64,
    currency: &'a str,
    fee: u64,
    net: u64,
    card: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'a str>,
}

fn handle(request: &Request) -> Response {
    match (request.method.as_str(), request.segments("/payments").as_slice()) {
        ("POST", []) => pay(request).unwrap_or_else(|refused| refused),
        ("GET", ["health"]) => health(),
        ("GET", ["currencies"]) => Response::json(200, &currency::ALL.map(|currency| currency.code)),
        #[cfg(any(feature = "2.1.0", feature = "2.2.0"))]
        ("POST", ["quote"]) => quote(request).unwrap_or_else(|refused| refused),
        (_, [] | ["health" | "currencies"]) => Response::error(405, "POST /payments, GET /payments/health"),
        _ => Response::not_found(request),
    }
}

fn pay(request: &Request) -> Result<Response, Response> {
    let payment: Payment = request.json()?;
    let currency = known(&payment.currency)?;
    if payment.amount == 0 {
        return Err(Response::error(422, "the amount must be at least 1 minor unit"));
    }
    payment
        .card
        .check()
        .map_err(|problem| Response::error(422, problem))?;
    let fee = priced(payment.amount, currency, &payment.card)?;
    let reason = if payment.card.is_blocked() {
        Some("card_declined")
    } else if payment.amount > currency.minor(AUTHORISED_MAJOR_MAX) {
        Some("over_limit")
    } else if fee >= payment.amount {
        Some("amount_below_fee")
    } else {
        None
    };
    let seen = SEEN.with(|seen| seen.replace(seen.get() + 1));
    let id = fingerprint(&[&request.body, &seen.to_le_bytes()]);
    let answer = Answer {
        id: format!("pay_{id:016x}"),
        status: if reason.is_some() {
            "declined"
        } else {
            "authorised"
        },
        amount: payment.amount,
        currency: currency.code,
        fee: if reason.is_some() { 0 } else { fee },
        net: if reason.is_some() { 0 } else { payment.amount - fee },
        card: payment.card.masked(),
        reason,
    };
    Ok(Response::json(if reason.is_some() { 402 } else { 201 }, &answer))
}

/// What a payment would cost, without a payment.
#[cfg(any(feature = "2.1.0", feature = "2.2.0"))]
fn quote(request: &Request) -> Result<Response, Response> {
    #[derive(Serialize)]
    struct Quote<'a> {
        amount: u64,
        currency: &'a str,
        fee: u64,
    }
    let payment: Payment = request.json()?;
    let currency = known(&payment.currency)?;
    let fee = priced(payment.amount, currency, &payment.card)?;
    Ok(Response::json(
        200,
        &Quote {
            amount: payment.amount,
            currency: currency.code,
            fee,
        },
    ))
}

fn known(code: &str) -> Result<&'static Currency, Response> {
    currency::find(code).ok_or_else(|| Response::error(422, &format!("currency {code:?} is not accepted")))
}

fn priced(amount: u64, currency: &Currency, card: &Card) -> Result<u64, Response> {
    fees::fee(amount, currency, card).ok_or_else(|| Response::error(500, "the fee could not be computed"))
}

fn health() -> Response {
    #[derive(Serialize)]
    struct Health<'a> {
        status: &'a str,
        version: &'a str,
        payments: u64,
    }
    Response::json(
        200,
        &Health {
            status: "ok",
            version: env!("MODULE_VERSION"),
            payments: SEEN.get(),
        },
    )
}
