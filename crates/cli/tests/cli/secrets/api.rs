//! The API as a program asks it, which keeps every answer.

use reqwest::Method;
use serde_json::Value;

/// A client of the API.
pub(super) struct Api {
    runtime: tokio::runtime::Runtime,
    client: reqwest::Client,
    url: String,
    /// All answers, head and body, by what was asked.
    pub(super) answers: Vec<(String, String)>,
}

impl Api {
    pub(super) fn new(url: &str, authority: String) -> Self {
        let roots = hotswap_transport::Roots::Pem(authority);
        let tls = hotswap_transport::client_config(roots, None, &[]).unwrap();
        let client = reqwest::Client::builder()
            .tls_backend_preconfigured(tls)
            .build()
            .unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        Self {
            runtime: runtime.unwrap(),
            client,
            url: url.to_owned(),
            answers: Vec::new(),
        }
    }

    /// Asks with a token, and a body where there is one; returns the status and the body.
    pub(super) fn ask(
        &mut self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: Option<Value>,
    ) -> (u16, String) {
        let base = if path.starts_with("http") { "" } else { &*self.url };
        let (shown, _) = path.split_once('?').unwrap_or((path, ""));
        let asked = format!("{method} {shown}");
        let mut request = self.client.request(method, format!("{base}{path}"));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        if let Some(body) = body {
            request = request.json(&body);
        }
        let (status, head, body) = self.runtime.block_on(async {
            let answer = request.send().await.unwrap();
            let head = format!("{:?}", answer.headers());
            (answer.status().as_u16(), head, answer.text().await.unwrap())
        });
        self.answers.push((asked, format!("{head}\n{body}\n")));
        (status, body)
    }
}
