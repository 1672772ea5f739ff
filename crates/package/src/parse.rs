//! From TOML to a manifest, collecting every fault on the way instead of stopping at the first.

use std::collections::BTreeSet;
use std::fmt::Display;

use serde::de::DeserializeOwned;
use toml::{Table, Value};

use crate::faults::{Fault, ManifestError};
use crate::manifest::{
    Capabilities, DRAIN_DEADLINE, Health, Isolation, Kind, Limits, MANIFEST_BYTES_MAX, MANIFEST_FILE,
    Manifest, Route, SmokeCheck, default_drain_deadline, default_method, default_smoke_timeout,
    default_status,
};
use crate::parse_ebpf::{read_ebpf, variables_not_asked_for};
use crate::parse_kernel::read_kernel;
use crate::process::{Process, Ready};
use crate::rules;

/// Longest description, in characters.
const DESCRIPTION_LEN_MAX: usize = 1_000;
/// Most routes of a module.
const ROUTES_MAX: usize = 32;

impl Manifest {
    /// Reads a manifest's text.
    ///
    /// # Errors
    /// Text that is not TOML, or every fault of what it says at once, each with its key and what would be right.
    pub fn parse(text: &str) -> Result<Self, ManifestError> {
        let size = text.len() as u64;
        if size > MANIFEST_BYTES_MAX {
            return Err(ManifestError::TooLarge {
                size,
                max: MANIFEST_BYTES_MAX,
            });
        }
        let table: Table = text
            .parse()
            .map_err(|e: toml::de::Error| ManifestError::NotToml(e.to_string().trim_end().to_owned()))?;
        let mut faults = Vec::new();
        match (read_manifest(table, &mut faults), faults.is_empty()) {
            (Some(manifest), true) => Ok(manifest),
            (_, _) => Err(ManifestError::Faults(faults)),
        }
    }

    /// Reads a manifest's bytes.
    ///
    /// # Errors
    /// Those of [`Manifest::parse`], and bytes that are not text.
    pub fn from_slice(bytes: &[u8]) -> Result<Self, ManifestError> {
        let size = bytes.len() as u64;
        if size > MANIFEST_BYTES_MAX {
            return Err(ManifestError::TooLarge {
                size,
                max: MANIFEST_BYTES_MAX,
            });
        }
        let text = std::str::from_utf8(bytes).map_err(|e| ManifestError::NotText {
            offset: e.valid_up_to(),
        })?;
        Self::parse(text)
    }
}

/// `None` only with a fault recorded.
fn read_manifest(table: Table, faults: &mut Vec<Fault>) -> Option<Manifest> {
    let mut top = Section::new("", table, faults);
    let name = top.required("name", "a module name such as \"payment-processor\"");
    let version = top.required("version", "a semantic version such as \"1.2.0\"");
    let kind = top.optional("kind", Kind::default());
    let entry = top.required("entry", "the artifact's file name, such as \"module.wasm\"");
    let description: String = top.optional("description", String::new());
    let isolation = top.optional("isolation", Isolation::default());
    let drain_deadline = top.optional("drain-deadline", default_drain_deadline());
    top.within("drain-deadline", drain_deadline, DRAIN_DEADLINE);
    if description.chars().count() > DESCRIPTION_LEN_MAX {
        top.fault(
            "description",
            format!("is too long; at most {DESCRIPTION_LEN_MAX} characters"),
        );
    }
    if let Some(problem) = entry.as_deref().and_then(rules::entry_problem) {
        top.fault("entry", problem);
    }

    let routes = top.list("routes", ROUTES_MAX, read_route);
    let limits = top.section("limits").map_or_else(Limits::default, read_limits);
    let smoke = top.list("smoke", SmokeCheck::COUNT_MAX, read_smoke);
    let capabilities = top
        .section("capabilities")
        .map_or_else(Capabilities::default, |section| read_capabilities(section, kind));
    let health = top.section("health").map_or_else(Health::default, read_health);
    let process = top.section("process").map(read_process);
    let process = match (kind, process) {
        (Kind::Process, process) => Some(process.unwrap_or_default()),
        (_, None) => None,
        (_, Some(_)) => {
            top.fault(
                "process",
                format!("is for process modules, and this one is of kind {kind}; leave it out"),
            );
            None
        }
    };
    if kind == Kind::Process && isolation == Isolation::Request {
        top.fault("isolation", "a process serves many requests; leave it out");
    }
    let ebpf = match (kind, top.section("ebpf")) {
        (Kind::Ebpf, Some(section)) => read_ebpf(section),
        (Kind::Ebpf, None) => {
            top.fault(
                "ebpf",
                "is missing; an ebpf module says in [ebpf] where its programs are attached",
            );
            None
        }
        (_, None) => None,
        (_, Some(_)) => {
            top.fault(
                "ebpf",
                format!("is for ebpf modules, and this one is of kind {kind}; leave it out"),
            );
            None
        }
    };
    let kernel = match (kind, top.section("kernel")) {
        (Kind::Kernel, Some(section)) => read_kernel(section),
        (Kind::Kernel, None) => {
            top.fault(
                "kernel",
                "is missing; a kernel module says in [kernel] what its name and its builds are",
            );
            None
        }
        (_, None) => None,
        (_, Some(_)) => {
            top.fault(
                "kernel",
                format!("is for kernel modules, and this one is of kind {kind}; leave it out"),
            );
            None
        }
    };
    if kind == Kind::Kernel {
        for (key, asked) in [
            ("outbound-hosts", &capabilities.outbound_hosts),
            ("environment", &capabilities.environment),
        ] {
            if !asked.is_empty() {
                top.fault(
                    &format!("capabilities.{key}"),
                    "a kernel module is given its parameters only; leave it out",
                );
            }
        }
    }
    for (key, problem) in ebpf
        .iter()
        .flat_map(|ebpf| variables_not_asked_for(ebpf, &capabilities))
    {
        top.fault(&key, problem);
    }
    if kind == Kind::Ebpf && !capabilities.outbound_hosts.is_empty() {
        top.fault(
            "capabilities.outbound-hosts",
            "an eBPF program sends no requests; leave it out",
        );
    }
    check_together(&mut top, kind, &routes, &smoke);
    top.finish(&[
        "name",
        "version",
        "kind",
        "entry",
        "description",
        "isolation",
        "drain-deadline",
        "[[routes]]",
        "[limits]",
        "[[smoke]]",
        "[capabilities]",
        "[health]",
        "[process]",
        "[ebpf]",
        "[kernel]",
    ]);
    Some(Manifest {
        name: name?,
        version: version?,
        kind,
        entry: entry?,
        description,
        isolation,
        drain_deadline,
        routes: routes.into_iter().flatten().collect(),
        limits,
        smoke: smoke.into_iter().flatten().collect(),
        capabilities,
        health,
        process,
        ebpf,
        kernel,
    })
}

/// What holds between keys. Items that are themselves faulty are `None` and keep their place.
fn check_together(top: &mut Section<'_>, kind: Kind, routes: &[Option<Route>], smoke: &[Option<SmokeCheck>]) {
    if kind.routes() {
        if routes.is_empty() {
            top.fault(
                "routes",
                format!("a {kind} module needs at least one, such as [[routes]] prefix = \"/name\""),
            );
        }
        if smoke.is_empty() {
            top.fault(
                "smoke",
                format!("a {kind} module needs at least one check that shows that a release works"),
            );
        }
    } else {
        for (key, count) in [("routes", routes.len()), ("smoke", smoke.len())] {
            if count > 0 {
                top.fault(
                    key,
                    format!("requests are not routed to {kind} modules; leave it out"),
                );
            }
        }
    }
    let mut seen = BTreeSet::new();
    for (i, route) in routes.iter().enumerate() {
        if route.as_ref().is_some_and(|route| !seen.insert(route)) {
            top.fault(&format!("routes[{i}]"), "is there twice; leave one out");
        }
    }
    let mut names = BTreeSet::new();
    let routes_known = !routes.is_empty() && routes.iter().all(Option::is_some);
    for (i, check) in smoke.iter().enumerate() {
        let Some(check) = check else { continue };
        if !names.insert(&check.name) {
            top.fault(
                &format!("smoke[{i}].name"),
                format!("{:?} is there twice; names are unique", check.name),
            );
        }
        let path = check.path.split('?').next().unwrap_or_default();
        if routes_known && !routes.iter().flatten().any(|route| route.covers_path(path)) {
            top.fault(
                &format!("smoke[{i}].path"),
                format!("{path:?} is under none of the routes"),
            );
        }
    }
}

fn read_route(mut section: Section<'_>) -> Option<Route> {
    let host: Option<String> = section.maybe("host");
    if let Some(problem) = host.as_deref().and_then(rules::host_problem) {
        section.fault("host", problem);
    }
    let prefix: Option<String> = section.required("prefix", "a path such as \"/payments\"");
    if let Some(problem) = prefix.as_deref().and_then(rules::prefix_problem) {
        section.fault("prefix", problem);
    }
    section.finish(&["host", "prefix"]).then_some(())?;
    Some(Route {
        host,
        prefix: prefix?,
    })
}

fn read_limits(mut section: Section<'_>) -> Limits {
    let default = Limits::default();
    let limits = Limits {
        memory: section.bounded("memory", default.memory, Limits::MEMORY),
        time: section.bounded("time", default.time, Limits::TIME),
        concurrency: section.bounded("concurrency", default.concurrency, Limits::CONCURRENCY),
        instance_reuse: section.bounded("instance-reuse", default.instance_reuse, Limits::INSTANCE_REUSE),
        body: section.bounded("body", default.body, Limits::BODY),
    };
    section.finish(&["memory", "time", "concurrency", "instance-reuse", "body"]);
    limits
}

fn read_smoke(mut section: Section<'_>) -> Option<SmokeCheck> {
    let name: Option<String> = section.required("name", "a few words, such as \"takes a payment\"");
    if let Some(problem) = name.as_deref().and_then(rules::check_name_problem) {
        section.fault("name", problem);
    }
    let method: String = section.optional("method", default_method());
    if let Some(problem) = rules::method_problem(&method) {
        section.fault("method", problem);
    }
    let path: Option<String> = section.required("path", "a path such as \"/payments/health\"");
    if let Some(problem) = path.as_deref().and_then(rules::path_problem) {
        section.fault("path", problem);
    }
    let headers: std::collections::BTreeMap<String, String> = section.optional("headers", Default::default());
    for (header, value) in &headers {
        if let Some(problem) = rules::header_problem(header, value) {
            section.fault(&format!("headers.{header}"), problem);
        }
    }
    let body = section.optional("body", String::new());
    let expect_status = section.bounded("expect-status", default_status(), (100, 599));
    let expect_body_contains = section.maybe("expect-body-contains");
    let timeout = section.bounded("timeout", default_smoke_timeout(), SmokeCheck::TIMEOUT);
    let sound = section.finish(&[
        "name",
        "method",
        "path",
        "headers",
        "body",
        "expect-status",
        "expect-body-contains",
        "timeout",
    ]);
    sound.then_some(())?;
    Some(SmokeCheck {
        name: name?,
        method,
        path: path?,
        headers,
        body,
        expect_status,
        expect_body_contains,
        timeout,
    })
}

fn read_capabilities(mut section: Section<'_>, kind: Kind) -> Capabilities {
    let capabilities = Capabilities {
        outbound_hosts: section.optional("outbound-hosts", Vec::new()),
        environment: section.optional("environment", Vec::new()),
    };
    let lists: [(&str, &Vec<String>, rules::Rule); 2] = [
        (
            "outbound-hosts",
            &capabilities.outbound_hosts,
            if kind == Kind::Process {
                rules::network_problem
            } else {
                rules::outbound_problem
            },
        ),
        (
            "environment",
            &capabilities.environment,
            if kind == Kind::Process {
                rules::process_variable_problem
            } else {
                rules::variable_problem
            },
        ),
    ];
    for (key, list, rule) in lists {
        if list.len() > Capabilities::COUNT_MAX {
            section.fault(
                key,
                format!("has {} entries; at most {}", list.len(), Capabilities::COUNT_MAX),
            );
        }
        for (i, item) in list.iter().enumerate() {
            if let Some(problem) = rule(item) {
                section.fault(&format!("{key}[{i}]"), problem);
            }
        }
    }
    section.finish(&["outbound-hosts", "environment"]);
    capabilities
}

fn read_process(mut section: Section<'_>) -> Process {
    let default = Process::default();
    let process = Process {
        arguments: section.optional("arguments", Vec::new()),
        ready: section.optional("ready", default.ready),
        ready_path: section.maybe("ready-path"),
        ready_deadline: section.bounded("ready-deadline", default.ready_deadline, Process::READY_DEADLINE),
        stop_deadline: section.bounded("stop-deadline", default.stop_deadline, Process::STOP_DEADLINE),
        socket: section.optional("socket", default.socket),
        tasks: section.bounded("tasks", default.tasks, Process::TASKS),
        open_files: section.bounded("open-files", default.open_files, Process::OPEN_FILES),
    };
    if process.arguments.len() > Process::ARGUMENTS_MAX {
        section.fault(
            "arguments",
            format!(
                "there are {}; at most {}",
                process.arguments.len(),
                Process::ARGUMENTS_MAX
            ),
        );
    }
    for (i, argument) in process.arguments.iter().enumerate() {
        if let Some(problem) = rules::argument_problem(argument) {
            section.fault(&format!("arguments[{i}]"), problem);
        }
    }
    match (process.ready, &process.ready_path) {
        (Ready::Http, None) => section.fault(
            "ready-path",
            "is missing; give the path that answers once the process is ready, such as \"/health\"",
        ),
        (Ready::Http, Some(path)) => {
            if let Some(problem) = rules::path_problem(path) {
                section.fault("ready-path", problem);
            }
        }
        (Ready::Notify, Some(_)) => {
            section.fault("ready-path", "is for ready = \"http\"; leave it out, or set that");
        }
        (Ready::Notify, None) => {}
    }
    section.finish(&[
        "arguments",
        "ready",
        "ready-path",
        "ready-deadline",
        "stop-deadline",
        "socket",
        "tasks",
        "open-files",
    ]);
    process
}

fn read_health(mut section: Section<'_>) -> Health {
    let default = Health::default();
    let health = Health {
        gross_error_share: section.bounded(
            "gross-error-share",
            default.gross_error_share,
            Health::GROSS_ERROR_SHARE,
        ),
        window: section.bounded("window", default.window, Health::WINDOW),
    };
    section.finish(&["gross-error-share", "window"]);
    health
}

/// One table of the manifest while it is read: what was taken is gone, what is left at the end is unknown.
pub(crate) struct Section<'a> {
    path: String,
    left: Table,
    faults: &'a mut Vec<Fault>,
    faults_before: usize,
}

impl<'a> Section<'a> {
    fn new(path: impl Into<String>, table: Table, faults: &'a mut Vec<Fault>) -> Self {
        Self {
            path: path.into(),
            left: table,
            faults_before: faults.len(),
            faults,
        }
    }

    fn key(&self, key: &str) -> String {
        if self.path.is_empty() {
            key.to_owned()
        } else {
            format!("{}.{key}", self.path)
        }
    }

    pub(crate) fn fault(&mut self, key: &str, problem: impl Into<String>) {
        let key = self.key(key);
        self.faults.push(Fault {
            key,
            problem: problem.into(),
        });
    }

    pub(crate) fn maybe<T: DeserializeOwned>(&mut self, key: &str) -> Option<T> {
        let value = self.left.remove(key)?;
        match value.try_into() {
            Ok(value) => Some(value),
            Err(error) => {
                self.fault(key, error.message().trim());
                None
            }
        }
    }

    pub(crate) fn optional<T: DeserializeOwned>(&mut self, key: &str, default: T) -> T {
        self.maybe(key).unwrap_or(default)
    }

    pub(crate) fn required<T: DeserializeOwned>(&mut self, key: &str, should_be: &str) -> Option<T> {
        if !self.left.contains_key(key) {
            self.fault(key, format!("is missing; give {should_be}"));
        }
        self.maybe(key)
    }

    pub(crate) fn within<T: PartialOrd + Display + Copy>(&mut self, key: &str, value: T, (min, max): (T, T)) {
        if !(min..=max).contains(&value) {
            self.fault(key, format!("{value} is out of bounds; {min} to {max}"));
        }
    }

    pub(crate) fn bounded<T: DeserializeOwned + PartialOrd + Display + Copy>(
        &mut self,
        key: &str,
        default: T,
        bounds: (T, T),
    ) -> T {
        let value = self.optional(key, default);
        self.within(key, value, bounds);
        value
    }

    pub(crate) fn section(&mut self, key: &str) -> Option<Section<'_>> {
        let path = self.key(key);
        match self.left.remove(key)? {
            Value::Table(table) => Some(Section::new(path, table, self.faults)),
            _ => {
                self.fault(key, format!("must be a table, written [{key}]"));
                None
            }
        }
    }

    /// Each item, or `None` in its place where it has a fault.
    pub(crate) fn list<T>(
        &mut self,
        key: &str,
        max: usize,
        read: fn(Section<'_>) -> Option<T>,
    ) -> Vec<Option<T>> {
        let items = match self.left.remove(key) {
            None => return Vec::new(),
            Some(Value::Array(items)) if items.iter().all(Value::is_table) => items,
            Some(_) => {
                self.fault(key, format!("must be tables, each written [[{key}]]"));
                return vec![None];
            }
        };
        if items.len() > max {
            self.fault(key, format!("there are {}; at most {max}", items.len()));
        }
        let mut out = Vec::new();
        for (i, item) in items.into_iter().take(max).enumerate() {
            let Value::Table(table) = item else { continue };
            let path = self.key(&format!("{key}[{i}]"));
            out.push(read(Section::new(path, table, self.faults)));
        }
        out
    }

    /// Reports what nobody took; says whether the section had no fault.
    pub(crate) fn finish(mut self, known: &[&str]) -> bool {
        for key in std::mem::take(&mut self.left).keys() {
            let here = if self.path.is_empty() {
                MANIFEST_FILE
            } else {
                &self.path.clone()
            };
            self.fault(key, format!("is unknown; {here} has {}", known.join(", ")));
        }
        self.faults.len() == self.faults_before
    }
}
