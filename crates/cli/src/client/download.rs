//! Downloads: resumed where the connection broke.

use std::io::Write;

use reqwest::StatusCode;
use reqwest::header::RANGE;

use super::{ATTEMPTS_MAX, ApiError, Client, PUSH_TIMEOUT};

impl Client {
    /// Writes a package's bytes, going on where a connection broke; `received` is told how many there are so far.
    ///
    /// # Errors
    /// As [`Client::get`], and those of `to`.
    pub(crate) async fn download(
        &self,
        digest: &str,
        to: &mut impl Write,
        mut received: impl FnMut(u64),
    ) -> anyhow::Result<u64> {
        let url = self.url(&["artifacts", digest], &[])?;
        let broken = |error| ApiError::of_transport(self.address(), &error);
        let (mut at, mut attempt) = (0_u64, 1);
        loop {
            let request = self.http.get(url.clone()).timeout(PUSH_TIMEOUT);
            let mut request = self.authorised(request).await?;
            if at > 0 {
                request = request.header(RANGE, format!("bytes={at}-"));
            }
            let mut response = request.send().await.map_err(broken)?;
            let status = response.status();
            if !status.is_success() {
                let headers = response.headers().clone();
                let body = response.bytes().await.map_err(broken)?;
                return Err(ApiError::refused(status, &headers, &body).into());
            }
            if at > 0 && status != StatusCode::PARTIAL_CONTENT {
                let what = "the whole package where the rest of it was asked for".to_owned();
                let url = url.to_string();
                return Err(ApiError::Unexpected { url, what }.into());
            }
            loop {
                match response.chunk().await {
                    Ok(Some(chunk)) => {
                        to.write_all(&chunk)?;
                        at += chunk.len() as u64;
                        received(at);
                    }
                    Ok(None) => return Ok(at),
                    Err(_) if attempt < ATTEMPTS_MAX => break,
                    Err(error) => return Err(broken(error).into()),
                }
            }
            attempt += 1;
        }
    }
}
