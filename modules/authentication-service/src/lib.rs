//! Signs users in: passwords checked, tokens issued and verified, with no state between nodes.
//!
//! `POST /auth/tokens`, `POST /auth/verify`, `GET /auth/health`. An example: its users and its key are built in,
//! and since a module has no clock unless it asks for one, its tokens don't expire.

mod token;
mod users;

use hotswap_guest::{Request, Response};
use serde::{Deserialize, Serialize};

hotswap_guest::serve!(handle);

#[derive(Deserialize)]
struct Credentials {
    user: String,
    password: String,
}

#[derive(Serialize)]
struct Issued<'a> {
    token: String,
    #[serde(rename = "tokenType")]
    token_type: &'a str,
    subject: &'a str,
    role: &'a str,
}

#[derive(Deserialize)]
struct Presented {
    token: String,
}

#[derive(Serialize)]
struct Verified<'a> {
    valid: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    subject: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    role: Option<&'a str>,
}

fn handle(request: &Request) -> Response {
    match (request.method.as_str(), request.segments("/auth").as_slice()) {
        ("POST", ["tokens"]) => issue(request).unwrap_or_else(|refused| refused),
        ("POST", ["verify"]) => verify(request).unwrap_or_else(|refused| refused),
        ("GET", ["health"]) => Response::json(
            200,
            &Verified {
                valid: true,
                subject: None,
                role: None,
            },
        ),
        (_, ["tokens" | "verify" | "health"]) => Response::error(405, "POST /auth/tokens, POST /auth/verify"),
        _ => Response::not_found(request),
    }
}

fn issue(request: &Request) -> Result<Response, Response> {
    let Credentials { user, password } = request.json()?;
    // One answer for both, so that nobody learns which users there are.
    let user =
        users::signed_in(&user, &password).ok_or_else(|| Response::error(401, "wrong user or password"))?;
    let token = token::issue(user.name, user.role);
    Ok(Response::json(
        201,
        &Issued {
            token,
            token_type: "Bearer",
            subject: user.name,
            role: user.role,
        },
    ))
}

fn verify(request: &Request) -> Result<Response, Response> {
    let Presented { token } = request.json()?;
    Ok(match token::verified(&token) {
        Some((subject, role)) => Response::json(
            200,
            &Verified {
                valid: true,
                subject: Some(subject),
                role: Some(role),
            },
        ),
        None => Response::json(
            401,
            &Verified {
                valid: false,
                subject: None,
                role: None,
            },
        ),
    })
}
