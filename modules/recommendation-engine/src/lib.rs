//! Recommends items: those most like what somebody has looked at, by the cosine of their factors.
//!
//! `GET /recommendations?items=ID,ID&limit=N`, `POST /recommendations`, `GET /recommendations/health`.

mod catalogue;

use hotswap_guest::{Request, Response};
use serde::{Deserialize, Serialize};

use catalogue::{FACTORS, ITEMS};

hotswap_guest::serve!(handle);

const LIMIT_DEFAULT: usize = 5;
const LIMIT_MAX: usize = 20;
/// Most items of a history that count; the latest do.
const HISTORY_MAX: usize = 50;
/// Each step back in a history counts this much of the one after it.
const FADING: f32 = 0.8;

#[derive(Deserialize)]
struct Asked {
    /// Ids, the latest last.
    items: Vec<u32>,
    #[serde(default)]
    limit: Option<usize>,
}

#[derive(Serialize)]
struct Answer {
    recommendations: Vec<Recommendation>,
}

#[derive(Serialize)]
struct Recommendation {
    item: u32,
    name: &'static str,
    /// Likeness in thousandths.
    score: i32,
}

#[derive(Serialize)]
struct Health<'a> {
    status: &'a str,
    items: usize,
}

fn handle(request: &Request) -> Response {
    let answer = match (
        request.method.as_str(),
        request.segments("/recommendations").as_slice(),
    ) {
        ("GET", []) => from_query(request).and_then(recommend),
        ("POST", []) => request.json().and_then(recommend),
        ("GET", ["health"]) => Ok(Response::json(
            200,
            &Health {
                status: "ok",
                items: ITEMS.len(),
            },
        )),
        (_, [] | ["health"]) => Err(Response::error(405, "GET or POST /recommendations")),
        _ => Err(Response::not_found(request)),
    };
    answer.unwrap_or_else(|refused| refused)
}

fn from_query(request: &Request) -> Result<Asked, Response> {
    let wrong = |_| {
        Response::error(
            400,
            "items must be numbers with commas between, and limit a number",
        )
    };
    let items = request
        .query("items")
        .unwrap_or_default()
        .split(',')
        .filter(|item| !item.is_empty());
    let items = items.map(str::parse).collect::<Result<_, _>>().map_err(wrong)?;
    let limit = request
        .query("limit")
        .map(str::parse)
        .transpose()
        .map_err(wrong)?;
    Ok(Asked { items, limit })
}

fn recommend(asked: Asked) -> Result<Response, Response> {
    let limit = asked.limit.unwrap_or(LIMIT_DEFAULT);
    if !(1..=LIMIT_MAX).contains(&limit) {
        return Err(Response::error(422, &format!("limit must be 1 to {LIMIT_MAX}")));
    }
    let known = |id: &u32| usize::try_from(*id).ok().filter(|id| *id < ITEMS.len());
    let Some(history) = asked
        .items
        .iter()
        .rev()
        .take(HISTORY_MAX)
        .map(known)
        .collect::<Option<Vec<_>>>()
    else {
        return Err(Response::error(
            422,
            &format!("items are 0 to {}", ITEMS.len() - 1),
        ));
    };
    let mut taste = [0.0; FACTORS];
    let mut weight = 1.0;
    for item in &history {
        for (taste, factor) in taste.iter_mut().zip(catalogue::factors(*item)) {
            *taste += weight * factor;
        }
        weight *= FADING;
    }
    let candidates = (0..ITEMS.len()).filter(|item| !history.contains(item));
    let mut scored: Vec<(usize, f32)> = candidates
        .map(|item| (item, cosine(&taste, &catalogue::factors(item))))
        .collect();
    scored.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
    let recommendations = scored
        .into_iter()
        .take(limit)
        .map(|(item, score)| Recommendation {
            item: item as u32,
            name: ITEMS[item].0,
            score: (score * 1000.0) as i32,
        });
    Ok(Response::json(
        200,
        &Answer {
            recommendations: recommendations.collect(),
        },
    ))
}

/// 0 where there is no taste yet: then the catalogue's order decides.
fn cosine(a: &[f32; FACTORS], b: &[f32; FACTORS]) -> f32 {
    let dot = |a: &[f32; FACTORS], b: &[f32; FACTORS]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f32>();
    let norms = dot(a, a).sqrt() * dot(b, b).sqrt();
    if norms > 0.0 { dot(a, b) / norms } else { 0.0 }
}
