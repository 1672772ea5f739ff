//! Writes notifications: a template, a language and some values make what goes out by e-mail, text or push.
//!
//! `POST /notifications`, `GET /notifications/templates`, `GET /notifications/health`. The same notification to the
//! same user twice is told as a duplicate, as far as the instance remembers.

mod templates;

use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};

use hotswap_guest::{Request, Response, fingerprint};
use serde::{Deserialize, Serialize};

hotswap_guest::serve!(handle);

/// Notifications that an instance remembers.
const REMEMBERED_MAX: usize = 128;
/// Characters of one text message.
const SEGMENT_CHARS: usize = 160;
/// Most text messages that one notification may become.
const SEGMENTS_MAX: usize = 4;

thread_local! {
    static SENT: RefCell<VecDeque<u64>> = const { RefCell::new(VecDeque::new()) };
}

#[derive(Clone, Copy, Deserialize, Serialize, PartialEq)]
#[serde(rename_all = "lowercase")]
enum Channel {
    Email,
    Sms,
    Push,
}

#[derive(Deserialize)]
struct Wanted {
    user: String,
    channel: Channel,
    template: String,
    #[serde(default)]
    locale: Option<String>,
    #[serde(default)]
    values: BTreeMap<String, String>,
}

#[derive(Serialize)]
struct Queued<'a> {
    id: String,
    user: &'a str,
    channel: Channel,
    subject: &'a str,
    body: String,
    segments: usize,
    duplicate: bool,
}

fn handle(request: &Request) -> Response {
    match (
        request.method.as_str(),
        request.segments("/notifications").as_slice(),
    ) {
        ("POST", []) => queue(request).unwrap_or_else(|refused| refused),
        ("GET", ["templates"]) => Response::json(200, &templates::ALL.map(|template| template.name)),
        ("GET", ["health"]) => Response::json(200, &BTreeMap::from([("status", "ok")])),
        (_, [] | ["templates" | "health"]) => {
            Response::error(405, "POST /notifications, GET /notifications/templates")
        }
        _ => Response::not_found(request),
    }
}

fn queue(request: &Request) -> Result<Response, Response> {
    let wanted: Wanted = request.json()?;
    let unknown = || Response::error(404, &format!("there is no template {:?}", wanted.template));
    let template = templates::ALL
        .iter()
        .find(|template| template.name == wanted.template)
        .ok_or_else(unknown)?;
    if wanted.user.trim().is_empty() {
        return Err(Response::error(422, "a notification needs a user"));
    }
    let text = template.text(wanted.locale.as_deref().unwrap_or("en"));
    let missing = |key: &str| Response::error(422, &format!("the template needs a value for {key:?}"));
    let body = templates::filled(text.body, &wanted.values).map_err(missing)?;
    let segments = match wanted.channel {
        Channel::Sms => body.chars().count().div_ceil(SEGMENT_CHARS),
        Channel::Email | Channel::Push => 1,
    };
    if segments > SEGMENTS_MAX {
        return Err(Response::error(
            422,
            &format!("the text needs {segments} messages; at most {SEGMENTS_MAX}"),
        ));
    }
    let id = fingerprint(&[
        wanted.user.as_bytes(),
        wanted.template.as_bytes(),
        body.as_bytes(),
    ]);
    let duplicate = remember(id);
    let queued = Queued {
        id: format!("ntf_{id:016x}"),
        user: &wanted.user,
        channel: wanted.channel,
        subject: text.subject,
        body,
        segments,
        duplicate,
    };
    Ok(Response::json(202, &queued))
}

/// Whether it was there before.
fn remember(id: u64) -> bool {
    SENT.with_borrow_mut(|sent| {
        let known = sent.contains(&id);
        if !known {
            if sent.len() == REMEMBERED_MAX {
                sent.pop_front();
            }
            sent.push_back(id);
        }
        known
    })
}
