//! quotes: answers `POST /quotes` with the fee for an amount, as a native server.

mod http;

/// The fee, in thousandths of the amount.
const FEE_PER_MILLE: u64 = 20;

/// What the module answers.
pub struct Answer {
    pub status: u16,
    /// JSON.
    pub body: String,
}

pub fn answer(method: &str, path: &str, body: &[u8]) -> Answer {
    let (status, body) = match (method, path) {
        ("GET", "/quotes") => (200, r#"{"status":"ok"}"#.to_owned()),
        ("POST", "/quotes") => match std::str::from_utf8(body).ok().and_then(|text| text.trim().parse::<u64>().ok()) {
            Some(amount) => (200, format!(r#"{{"fee":{}}}"#, amount.saturating_mul(FEE_PER_MILLE) / 1_000)),
            None => (422, r#"{"error":"the body should be an amount in minor units"}"#.to_owned()),
        },
        _ => (404, r#"{"error":"nothing there"}"#.to_owned()),
    };
    Answer { status, body }
}

fn main() -> std::io::Result<()> {
    http::serve(answer)
}
