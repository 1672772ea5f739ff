//! `POST /deployments`.

use std::collections::BTreeMap;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use hotswap_core::command::{Command, DESCRIPTION_LEN_MAX, DeployRequest, METADATA_ENTRIES_MAX};
use hotswap_core::ids::{DeploymentId, EnvName, ModuleName};
use serde::Serialize;
use serde_json::{Map, Value};
use utoipa::ToSchema;
use uuid::Uuid;

use super::body::JsonObject;
use super::call::Call;
use super::error::CommandRefused;
use super::params::environment;
use super::{Api, ApiError, BASE, Shared, commands};
use crate::views::deployment::status_name;
use crate::views::estimate::estimate;
use crate::views::time::{iso8601, rfc3339};

/// Largest seed: JSON's readers keep it exact.
const SEED_MAX: u64 = (1 << 53) - 1;
/// Longest key of a metadata entry, in characters.
const METADATA_KEY_LEN_MAX: usize = 100;
/// Longest value of a metadata entry, in characters.
const METADATA_VALUE_LEN_MAX: usize = 500;
/// Longest version, in characters.
const VERSION_LEN_MAX: usize = 128;
/// Longest e-mail address, by RFC 5321.
const EMAIL_LEN_MAX: usize = 254;
/// Longest local part of an e-mail address, by RFC 5321.
const EMAIL_LOCAL_LEN_MAX: usize = 64;

/// A deployment that is asked for, as the document describes it.
#[derive(ToSchema)]
#[expect(
    dead_code,
    reason = "a body is read field by field, to tell all its faults at once"
)]
#[serde(rename_all = "camelCase")]
pub(super) struct CreateDeployment {
    /// 3 to 64 of a-z, 0-9 and -, starting and ending alphanumeric.
    #[schema(example = "payment-processor", min_length = 3, max_length = 64)]
    pub module_name: String,
    /// A semantic version.
    #[schema(example = "2.1.0")]
    pub version: String,
    /// An environment, in any case.
    #[schema(example = "Production")]
    pub target_environment: String,
    /// Who asks.
    #[schema(format = "email")]
    pub requester_email: String,
    /// Whether a person must approve even where the environment doesn't require it.
    pub require_approval: Option<bool>,
    /// For people.
    #[schema(max_length = 1000)]
    pub description: Option<String>,
    /// For machines: at most 50 entries, keys of 1 to 100 characters, values of at most 500.
    pub metadata: Option<BTreeMap<String, String>>,
    /// Whether an older version may replace a newer one.
    pub allow_downgrade: Option<bool>,
    /// Whether a held rollout in its way is ended.
    pub supersede: Option<bool>,
    /// The seed of its draws, as a plan states it; drawn where it is absent. Below 2⁵³.
    pub seed: Option<u64>,
}

/// A deployment that was accepted.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct CreatedDeployment {
    /// Its identity.
    #[schema(format = "uuid")]
    pub execution_id: String,
    /// Running or PendingApproval.
    pub status: &'static str,
    /// When it was accepted.
    #[schema(format = "date-time")]
    pub start_time: String,
    /// About how long it will take: the median of finished ones like it, else its plan's waits; ISO 8601.
    #[schema(example = "PT5M23S")]
    pub estimated_duration: String,
    /// The W3C trace id of its trace.
    pub trace_id: String,
    /// Where to look next.
    pub links: DeploymentLinks,
}

/// Where to look next.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct DeploymentLinks {
    /// The deployment.
    #[serde(rename = "self")]
    pub this: String,
    /// Its decisions, in its trace.
    pub trace: String,
}

/// Where a deployment is found.
pub(super) fn location(id: DeploymentId) -> String {
    format!("{BASE}/deployments/{id}")
}

/// Starts a deployment.
///
/// It is refused here where it could not go as asked: with `no_capable_node` where no node of the target can run the
/// release, with `no_traffic_to_share` where an environment on its way has a canary by traffic and the module's kind
/// (`ebpf`, `kernel`) answers no requests. A canary by nodes takes every kind.
#[utoipa::path(
    post, path = "/deployments", tag = "deployments", security(("bearer" = ["Deployer"])),
    request_body = CreateDeployment,
    params(("Idempotency-Key" = Option<String>, Header, description = "A retry under the same key gets the first answer.")),
    responses(
        (status = ACCEPTED, body = CreatedDeployment, headers(("Location" = String, description = "The deployment."))),
        CommandRefused,
    )
)]
pub(super) async fn create(State(api): Shared, call: Call, body: JsonObject) -> Result<Response, ApiError> {
    let request = validate(&api, &call, &body.fields)?;
    let trace_id = call.trace_id.clone();
    let (module, target) = (request.module.clone(), request.target.clone());
    let answer = move |state: &hotswap_core::state::State, outcome: crate::driver::Outcome<'_>| {
        let (id, status) = match outcome.result {
            Ok(reply) => (reply.deployment, reply.status),
            Err(refusal) => return commands::refusal(refusal, &trace_id),
        };
        let id = id.expect("the core names the deployment that it accepts");
        let created = CreatedDeployment {
            execution_id: id.to_string(),
            status: status.map_or("Running", status_name),
            start_time: rfc3339(outcome.now.wall),
            estimated_duration: iso8601(estimate(state, &module, &target)),
            trace_id,
            links: DeploymentLinks {
                this: location(id),
                trace: format!("{}/why", location(id)),
            },
        };
        commands::answer(StatusCode::ACCEPTED, Some(location(id)), &created)
    };
    commands::run(
        &api,
        &call,
        &body.bytes,
        Command::Deploy(Box::new(request)),
        Box::new(answer),
    )
    .await
}

/// Reads the fields, or tells all their faults at once.
pub(super) fn validate(
    api: &Api,
    call: &Call,
    fields: &Map<String, Value>,
) -> Result<DeployRequest, ApiError> {
    let mut form = Form::new(fields);
    let module = form
        .required("moduleName")
        .and_then(|text| form.check("moduleName", text.parse::<ModuleName>()));
    let version = form
        .required("version")
        .and_then(|text| form.check("version", parse_version(text)));
    let target = form.required("targetEnvironment").and_then(|text| {
        let found = environment(&api.world().state(), text).map(|environment| environment.name.clone());
        form.check::<EnvName, _>("targetEnvironment", found)
    });
    let email = form
        .required("requesterEmail")
        .and_then(|text| form.check("requesterEmail", check_email(text)));
    let description = form.text("description").unwrap_or_default().to_owned();
    if description.chars().count() > DESCRIPTION_LEN_MAX {
        form.fault(
            "description",
            format!("must be at most {DESCRIPTION_LEN_MAX} characters"),
        );
    }
    let metadata = form.metadata();
    let require_approval = form.flag("requireApproval");
    let (allow_downgrade, supersede) = (form.flag("allowDowngrade"), form.flag("supersede"));
    let seed = form
        .number("seed")
        .unwrap_or_else(|| rand::random::<u64>() & SEED_MAX);
    match (module, version, target, email) {
        (Some(module), Some(version), Some(target), Some(email)) if form.faults.is_empty() => {
            Ok(DeployRequest {
                id: DeploymentId(Uuid::new_v4()),
                trace_id: call.trace_id.clone(),
                seed,
                module,
                version,
                target,
                requester: call.subject(),
                requester_email: email,
                require_approval,
                description,
                metadata,
                allow_downgrade,
                supersede,
            })
        }
        _ => Err(ApiError::validation(form.faults)),
    }
}

pub(super) fn parse_version(text: &str) -> Result<semver::Version, String> {
    let wrong = |why: &str| format!("must be a semantic version such as 2.1.0 or 2.1.0-rc.1: {why}");
    if text.len() > VERSION_LEN_MAX {
        return Err(wrong("it is too long"));
    }
    text.parse()
        .map_err(|error: semver::Error| wrong(&error.to_string()))
}

/// An address that mail could be sent to: one @ between a local part and a domain of plain labels.
pub(super) fn check_email(text: &str) -> Result<String, String> {
    let local_char = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+/=?^_`{|}~.-".contains(&b);
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    let right = text.len() <= EMAIL_LEN_MAX
        && text.rsplit_once('@').is_some_and(|(local, domain)| {
            (1..=EMAIL_LOCAL_LEN_MAX).contains(&local.len())
                && local.bytes().all(local_char)
                && local.split('.').all(|part| !part.is_empty())
                && domain.split('.').all(label)
        });
    if right {
        Ok(text.to_owned())
    } else {
        Err("must be an e-mail address such as ada@example.com".to_owned())
    }
}

/// A body's fields, with the faults found in them so far.
pub(super) struct Form<'a> {
    pub(super) fields: &'a Map<String, Value>,
    pub(super) faults: Vec<String>,
}

impl<'a> Form<'a> {
    /// A body's fields, in which no fault was found yet.
    pub(super) fn new(fields: &'a Map<String, Value>) -> Self {
        Self {
            fields,
            faults: Vec::new(),
        }
    }

    /// What was read, or all faults at once.
    pub(super) fn read<T>(self, read: Option<T>) -> Result<T, ApiError> {
        match read {
            Some(read) if self.faults.is_empty() => Ok(read),
            _ => Err(ApiError::validation(self.faults)),
        }
    }

    /// A text of at most so many characters, empty where it is absent.
    pub(super) fn short(&mut self, field: &str, chars_max: usize) -> String {
        let text = self.text(field).unwrap_or_default();
        if text.chars().count() > chars_max {
            self.fault(field, format!("must be at most {chars_max} characters"));
        }
        text.to_owned()
    }

    /// A whole number that JSON's readers all keep exact.
    pub(super) fn number(&mut self, field: &str) -> Option<u64> {
        match self.fields.get(field) {
            None | Some(Value::Null) => None,
            Some(value) => {
                let number = value.as_u64().filter(|number| *number <= SEED_MAX);
                if number.is_none() {
                    self.fault(field, format!("must be a whole number from 0 to {SEED_MAX}"));
                }
                number
            }
        }
    }

    pub(super) fn fault(&mut self, field: &str, fault: impl std::fmt::Display) {
        self.faults.push(format!("{field}: {fault}"));
    }

    pub(super) fn check<T, E: std::fmt::Display>(&mut self, field: &str, result: Result<T, E>) -> Option<T> {
        result.map_err(|fault| self.fault(field, fault)).ok()
    }

    /// A text; null counts as absent.
    pub(super) fn text(&mut self, field: &str) -> Option<&'a str> {
        match self.fields.get(field)? {
            Value::Null => None,
            Value::String(text) => Some(text),
            _ => {
                self.fault(field, "must be a string");
                None
            }
        }
    }

    /// A text that must be there.
    pub(super) fn required(&mut self, field: &str) -> Option<&'a str> {
        let faults = self.faults.len();
        let text = self.text(field).filter(|text| !text.is_empty());
        if text.is_none() && self.faults.len() == faults {
            self.fault(field, "is required");
        }
        text
    }

    /// An e-mail address that must be there.
    pub(super) fn email(&mut self, field: &str) -> Option<String> {
        let text = self.required(field)?;
        self.check(field, check_email(text))
    }

    /// True or false; absent is false.
    pub(super) fn flag(&mut self, field: &str) -> bool {
        self.optional_flag(field).unwrap_or(false)
    }

    /// True, false, or absent.
    pub(super) fn optional_flag(&mut self, field: &str) -> Option<bool> {
        match self.fields.get(field)? {
            Value::Null => None,
            Value::Bool(flag) => Some(*flag),
            _ => {
                self.fault(field, "must be true or false");
                None
            }
        }
    }

    fn metadata(&mut self) -> BTreeMap<String, String> {
        let entries = match self.fields.get("metadata") {
            None | Some(Value::Null) => return BTreeMap::new(),
            Some(Value::Object(entries)) => entries,
            Some(_) => {
                self.fault("metadata", "must be an object of strings");
                return BTreeMap::new();
            }
        };
        if entries.len() > METADATA_ENTRIES_MAX {
            self.fault(
                "metadata",
                format!(
                    "must have at most {METADATA_ENTRIES_MAX} entries, not {}",
                    entries.len()
                ),
            );
            return BTreeMap::new();
        }
        let mut metadata = BTreeMap::new();
        for (key, value) in entries {
            let shown: String = key.chars().take(METADATA_KEY_LEN_MAX).collect();
            if !(1..=METADATA_KEY_LEN_MAX).contains(&key.chars().count()) {
                self.fault(
                    "metadata",
                    format!("key {shown:?} must be 1 to {METADATA_KEY_LEN_MAX} characters"),
                );
            }
            match value {
                Value::String(text) if text.chars().count() <= METADATA_VALUE_LEN_MAX => {
                    metadata.insert(key.clone(), text.clone());
                }
                _ => self.fault(
                    "metadata",
                    format!("the value of {shown:?} must be a string of at most {METADATA_VALUE_LEN_MAX} characters"),
                ),
            }
        }
        metadata
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses() {
        for good in ["ada@example.com", "a.b+c@x-y.example", "ops@localhost"] {
            assert!(check_email(good).is_ok(), "{good}");
        }
        let long = format!("{}@example.com", "a".repeat(65));
        for bad in [
            "",
            "ada",
            "@example.com",
            "ada@",
            "a b@example.com",
            "ada@-x.com",
            "ada@x..com",
            "a..b@x.com",
            &long,
        ] {
            assert!(check_email(bad).is_err(), "{bad}");
        }
    }
}
