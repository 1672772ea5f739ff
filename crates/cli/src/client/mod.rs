//! The REST API, from a client's side.

mod download;
mod error;
mod events;
mod proof;
mod trusted;
mod types;

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use hotswap_transport::rustls::pki_types::CertificateDer;
use reqwest::header::{DATE, HeaderMap, LINK};
use reqwest::multipart::{Form, Part};
use reqwest::tls::TlsInfo;
use reqwest::{Method, Url};
use secrecy::{ExposeSecret as _, SecretString};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::credentials;

pub(crate) use error::ApiError;
pub(crate) use events::Event;
pub(crate) use proof::{Account, LoggedIn, Proof};
pub(crate) use trusted::Authorities;
pub(crate) use types::*;

/// Longest wait for a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// Longest wait for an answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);
/// Longest push: a package of 256 MiB over a slow line.
const PUSH_TIMEOUT: Duration = Duration::from_secs(600);
/// Bytes of a package that are handed on at once.
const PUSH_CHUNK_BYTES: usize = 64 << 10;
/// Attempts at a request whose connection broke; a POST repeats its `Idempotency-Key`.
const ATTEMPTS_MAX: u32 = 3;
/// Longest answer that is read.
const ANSWER_BYTES_MAX: usize = 64 << 20;
/// Most pages that are followed in one listing.
const PAGES_MAX: u32 = 100;

/// A client of one server.
#[derive(Clone, Debug)]
pub(crate) struct Client {
    http: reqwest::Client,
    base: Url,
    proof: Arc<Proof>,
}

/// A query string's pairs.
pub(crate) type Query<'a> = &'a [(&'a str, &'a str)];

/// What a request carries.
enum Body<'a> {
    None,
    Json(&'a Value),
    Package(Bytes, Sent),
    /// A package and its signature.
    Signed(Bytes, Bytes, Sent),
}

/// Is told how many bytes of a package are on their way.
pub(crate) type Sent = Arc<dyn Fn(u64) + Send + Sync>;

impl Client {
    /// A client of the server at `url`, which is trusted by these authorities where it speaks HTTPS.
    ///
    /// # Errors
    /// An address that is none, or authorities that can't be used.
    pub(crate) fn new(url: &str, authorities: &Authorities) -> Result<Self, ApiError> {
        let wrong = |why: &str| ApiError::Address {
            url: url.to_owned(),
            why: why.to_owned(),
        };
        if !url.contains("://") {
            return Err(wrong("it must begin with http:// or https://"));
        }
        let base: Url = url
            .parse()
            .map_err(|error: <Url as std::str::FromStr>::Err| wrong(&error.to_string()))?;
        let tls = match base.scheme() {
            "http" => Authorities::unneeded()?,
            "https" => authorities.tls(address_of(&base))?,
            _ => return Err(wrong("it must begin with http:// or https://")),
        };
        let http = reqwest::Client::builder()
            .connect_timeout(CONNECT_TIMEOUT)
            .tls_info(true)
            .user_agent(concat!("hotswap/", env!("CARGO_PKG_VERSION")))
            // A proxy of the environment knows nothing of a control plane.
            .no_proxy()
            .tls_backend_preconfigured(tls)
            .build()
            .map_err(|error| wrong(&error.to_string()))?;
        let proof = Arc::new(Proof::Nobody);
        Ok(Self { http, base, proof })
    }

    /// With what proves who it is.
    pub(crate) fn with(mut self, proof: Proof) -> Self {
        self.proof = Arc::new(proof);
        self
    }

    /// Logs in; this client itself stays who it is.
    ///
    /// # Errors
    /// As [`Client::get`].
    pub(crate) async fn login(&self, username: &str, password: &SecretString) -> Result<LoggedIn, ApiError> {
        let body = serde_json::json!({ "username": username, "password": password.expose_secret() });
        let url = self.url(&["authentication", "login"], &[])?;
        typed(
            self.attempt(&Method::POST, &url, &Body::Json(&body), None, None)
                .await?
                .0,
        )
    }

    /// The server's address.
    pub(crate) fn address(&self) -> &str {
        address_of(&self.base)
    }

    /// `GET /api/v1{path}`, as it is.
    ///
    /// # Errors
    /// The server is out of reach, refuses, or answers something else than JSON.
    pub(crate) async fn get(&self, path: &[&str], query: Query<'_>) -> Result<Value, ApiError> {
        let url = self.url(path, query)?;
        Ok(self.send(Method::GET, url, Body::None).await?.0)
    }

    /// `GET /api/v1{path}`, typed.
    ///
    /// # Errors
    /// As [`Client::get`], and an answer of another shape.
    pub(crate) async fn fetch<T: DeserializeOwned>(
        &self,
        path: &[&str],
        query: Query<'_>,
    ) -> Result<T, ApiError> {
        typed(self.get(path, query).await?)
    }

    /// A list over its pages, at most `limit` items.
    ///
    /// # Errors
    /// As [`Client::get`].
    pub(crate) async fn list(
        &self,
        path: &[&str],
        query: Query<'_>,
        limit: usize,
    ) -> Result<Vec<Value>, ApiError> {
        let mut url = self.url(path, query)?;
        let mut items = Vec::new();
        for _ in 0..PAGES_MAX {
            let (page, headers) = self.send(Method::GET, url.clone(), Body::None).await?;
            items.extend(typed::<Vec<Value>>(page)?);
            match next_page(&headers).and_then(|next| url.join(&next).ok()) {
                Some(next) if items.len() < limit => url = next,
                _ => break,
            }
        }
        items.truncate(limit);
        Ok(items)
    }

    /// `POST /api/v1{path}` with a body, or without one.
    ///
    /// # Errors
    /// As [`Client::get`].
    pub(crate) async fn post(&self, path: &[&str], body: Option<&impl Serialize>) -> Result<Value, ApiError> {
        let body = body.map(|body| serde_json::to_value(body).expect("requests are plain data"));
        self.call(Method::POST, path, body.as_ref()).await
    }

    /// `GET /health`, and how far the server's clock is from this one, where it tells the time.
    ///
    /// # Errors
    /// As [`Client::get`].
    pub(crate) async fn health(&self) -> Result<(Value, Option<Duration>), ApiError> {
        let mut url = self.base.clone();
        url.set_path("/health");
        let (health, headers) = self.send(Method::GET, url, Body::None).await?;
        let date = headers
            .get(DATE)
            .and_then(|date| httpdate::parse_http_date(date.to_str().ok()?).ok());
        let skew = date.map(|date| {
            let now = SystemTime::now();
            now.duration_since(date).unwrap_or_else(|error| error.duration())
        });
        Ok((health, skew))
    }

    /// The certificate that the server shows, where it speaks HTTPS and can be reached.
    pub(crate) async fn shown(&self) -> Option<CertificateDer<'static>> {
        let mut url = self.base.clone();
        url.set_path("/health/live");
        let response = self.http.get(url).timeout(ANSWER_TIMEOUT).send().await.ok()?;
        let shown = response.extensions().get::<TlsInfo>()?.peer_certificate()?;
        Some(CertificateDer::from(shown.to_vec()))
    }

    /// Another method than `GET` or `POST`, with a body or without one.
    ///
    /// # Errors
    /// As [`Client::get`].
    pub(crate) async fn call(
        &self,
        method: Method,
        path: &[&str],
        body: Option<&Value>,
    ) -> Result<Value, ApiError> {
        let url = self.url(path, &[])?;
        Ok(self
            .send(method, url, body.map_or(Body::None, Body::Json))
            .await?
            .0)
    }

    /// `PUT /api/v1{path}` with a body.
    ///
    /// # Errors
    /// As [`Client::get`].
    pub(crate) async fn put(&self, path: &[&str], body: &impl Serialize) -> Result<Value, ApiError> {
        let body = serde_json::to_value(body).expect("requests are plain data");
        self.call(Method::PUT, path, Some(&body)).await
    }

    /// `DELETE /api/v1{path}`.
    ///
    /// # Errors
    /// As [`Client::get`].
    pub(crate) async fn delete(&self, path: &[&str]) -> Result<Value, ApiError> {
        self.call(Method::DELETE, path, None).await
    }

    /// Pushes a package, with its signature where there is one; `sent` is told how many bytes are on their way.
    ///
    /// # Errors
    /// As [`Client::get`].
    pub(crate) async fn push(
        &self,
        package: Bytes,
        signature: Option<Bytes>,
        sent: Sent,
    ) -> Result<Value, ApiError> {
        let url = self.url(&["modules"], &[])?;
        let body = match signature {
            Some(signature) => Body::Signed(package, signature, sent),
            None => Body::Package(package, sent),
        };
        Ok(self.send(Method::POST, url, body).await?.0)
    }

    fn url(&self, path: &[&str], query: Query<'_>) -> Result<Url, ApiError> {
        let mut url = self.base.clone();
        url.path_segments_mut()
            .map_err(|()| ApiError::Address {
                url: self.base.to_string(),
                why: "it has no path".to_owned(),
            })?
            .pop_if_empty()
            .extend(["api", "v1"])
            // Percent-encoded, so that whatever was typed stays one segment.
            .extend(path);
        if !query.is_empty() {
            url.query_pairs_mut().extend_pairs(query);
        }
        Ok(url)
    }

    /// This client's token, and whether it was renewed just now, since it was about to end.
    async fn token(&self) -> Result<(Option<SecretString>, bool), ApiError> {
        match self.proof.token().await {
            (_, true) => Ok((self.renew().await?, true)),
            (token, false) => Ok((token, false)),
        }
    }

    /// A request with this client's token.
    async fn authorised(
        &self,
        request: reqwest::RequestBuilder,
    ) -> Result<reqwest::RequestBuilder, ApiError> {
        Ok(match self.token().await?.0 {
            Some(token) => request.bearer_auth(token.expose_secret()),
            None => request,
        })
    }

    async fn send(&self, method: Method, url: Url, body: Body<'_>) -> Result<(Value, HeaderMap), ApiError> {
        let key = (method != Method::GET).then(|| uuid::Uuid::new_v4().to_string());
        let mut attempt = 1;
        let (mut token, mut renewed) = self.token().await?;
        loop {
            match self
                .attempt(&method, &url, &body, key.as_deref(), token.as_ref())
                .await
            {
                Err(ApiError::Broken { .. }) if attempt < ATTEMPTS_MAX => attempt += 1,
                // The clocks may differ, or the server may have a new key.
                Err(error) if error.status() == Some(401) && !renewed && self.can_renew() => {
                    renewed = true;
                    token = self.renew().await?;
                }
                result => return result,
            }
        }
    }

    fn can_renew(&self) -> bool {
        matches!(*self.proof, Proof::Login { .. })
    }

    /// The next token of a login.
    async fn renew(&self) -> Result<Option<SecretString>, ApiError> {
        let Proof::Login { login, keeper } = &*self.proof else {
            return Ok(None);
        };
        let mut login = login.lock().await;
        // Without the folder it is renewed for this command alone.
        let _turn = keeper.as_ref().map(credentials::Keeper::turn);
        if let Some(kept) = keeper.as_ref().and_then(credentials::Keeper::look)
            && kept.refresh_token.expose_secret() != login.refresh_token.expose_secret()
        {
            *login = kept;
            if !proof::expires_soon(&login.expires_at) {
                return Ok(Some(login.token.clone()));
            }
        }
        let url = self.url(&["authentication", "refresh"], &[])?;
        let body = proof::refresh_body(&login.refresh_token);
        let answer = self
            .attempt(&Method::POST, &url, &Body::Json(&body), None, None)
            .await?;
        let next: LoggedIn = typed(answer.0)?;
        *login = next.login();
        if let Some(Err(error)) = keeper.as_ref().map(|keeper| keeper.keep(&login)) {
            eprintln!("warning: the login could not be remembered: {error:#}");
        }
        Ok(Some(login.token.clone()))
    }

    async fn attempt(
        &self,
        method: &Method,
        url: &Url,
        body: &Body<'_>,
        key: Option<&str>,
        token: Option<&SecretString>,
    ) -> Result<(Value, HeaderMap), ApiError> {
        let mut request = self.http.request(method.clone(), url.clone());
        if let Some(key) = key {
            request = request.header("idempotency-key", key);
        }
        if let Some(token) = token {
            request = request.bearer_auth(token.expose_secret());
        }
        request = match body {
            Body::None => request.timeout(ANSWER_TIMEOUT),
            Body::Json(json) => request.timeout(ANSWER_TIMEOUT).json(json),
            Body::Package(package, sent) => {
                let request = request
                    .header("content-type", "application/octet-stream")
                    .header("content-length", package.len());
                request.timeout(PUSH_TIMEOUT).body(told(package, sent))
            }
            Body::Signed(package, signature, sent) => {
                let length = package.len() as u64;
                let signature = Part::bytes(signature.to_vec()).file_name("file");
                let package = Part::stream_with_length(told(package, sent), length).file_name("file");
                let form = Form::new().part("signature", signature).part("package", package);
                request.timeout(PUSH_TIMEOUT).multipart(form)
            }
        };
        let broken = |error| ApiError::of_transport(self.address(), &error);
        let mut response = request.send().await.map_err(broken)?;
        let status = response.status();
        let headers = response.headers().clone();
        let mut bytes = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(broken)? {
            bytes.extend_from_slice(&chunk);
            if bytes.len() > ANSWER_BYTES_MAX {
                return Err(ApiError::Unexpected {
                    url: url.to_string(),
                    what: "an endless answer".to_owned(),
                });
            }
        }
        if !status.is_success() {
            return Err(ApiError::refused(status, &headers, &bytes));
        }
        if bytes.is_empty() {
            return Ok((Value::Null, headers));
        }
        let json = serde_json::from_slice(&bytes);
        let json = json.map_err(|_| ApiError::Unexpected {
            url: url.to_string(),
            what: "no JSON".to_owned(),
        })?;
        Ok((json, headers))
    }
}

/// How a server is called: its address without what says nothing.
fn address_of(base: &Url) -> &str {
    base.as_str().trim_end_matches('/')
}

/// An answer as a type.
///
/// # Errors
/// One of another shape.
pub(crate) fn typed<T: DeserializeOwned>(value: Value) -> Result<T, ApiError> {
    serde_json::from_value(value).map_err(ApiError::Shape)
}

/// The next page's address in a `Link` header: `<…>; rel="next"`.
fn next_page(headers: &HeaderMap) -> Option<String> {
    headers
        .get_all(LINK)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .find_map(|link| {
            let (address, parameters) = link.trim().strip_prefix('<')?.split_once('>')?;
            parameters.contains("rel=\"next\"").then(|| address.to_owned())
        })
}

/// A package in chunks; `sent` is told of each as it goes.
fn told(package: &Bytes, sent: &Sent) -> reqwest::Body {
    let (package, sent) = (package.clone(), Arc::clone(sent));
    let chunks = (0..package.len()).step_by(PUSH_CHUNK_BYTES).map(move |from| {
        let to = (from + PUSH_CHUNK_BYTES).min(package.len());
        sent(to as u64);
        Ok::<_, std::convert::Infallible>(package.slice(from..to))
    });
    reqwest::Body::wrap_stream(futures::stream::iter(chunks))
}
