//! Which module a request is for.

use std::collections::HashMap;
use std::sync::Arc;

use hotswap_package::Route;
use http::{Request, header};

use super::slot::Slot;

/// All routes of a node, immutable: a change makes another table.
#[derive(Default)]
pub(super) struct Table {
    /// By host, in lower case, without a port.
    hosts: HashMap<String, Vec<Entry>>,
    /// For any host.
    any: Vec<Entry>,
}

/// Entries lie longest prefix first.
struct Entry {
    /// Without a slash at its end; empty for `/`.
    prefix: String,
    slot: Arc<Slot>,
}

impl Table {
    pub(super) fn new<'a>(modules: impl Iterator<Item = (&'a Arc<Slot>, &'a [Route])>) -> Self {
        let mut table = Self::default();
        for (slot, routes) in modules {
            for route in routes {
                let entries = match &route.host {
                    Some(host) => table.hosts.entry(host.to_ascii_lowercase()).or_default(),
                    None => &mut table.any,
                };
                entries.push(Entry {
                    prefix: route.prefix.trim_end_matches('/').to_owned(),
                    slot: Arc::clone(slot),
                });
            }
        }
        for entries in table.hosts.values_mut().chain([&mut table.any]) {
            // Stable, so that of two equal ones the first module's comes first.
            entries.sort_by_key(|entry| std::cmp::Reverse(entry.prefix.len()));
        }
        table
    }

    /// The slot for a request: a route of its host before one of any, the longest prefix among them.
    pub(super) fn find<B>(&self, request: &Request<B>) -> Option<&Slot> {
        let path = request.uri().path();
        if !self.hosts.is_empty()
            && let Some(host) = host(request)
            && let Some(slot) = find_host(&self.hosts, host).and_then(|entries| longest(entries, path))
        {
            return Some(slot);
        }
        longest(&self.any, path)
    }
}

fn find_host<'a>(hosts: &'a HashMap<String, Vec<Entry>>, host: &str) -> Option<&'a Vec<Entry>> {
    // Hosts are in lower case nearly always: no copy then.
    if host.bytes().any(|byte| byte.is_ascii_uppercase()) {
        hosts.get(&host.to_ascii_lowercase())
    } else {
        hosts.get(host)
    }
}

fn longest<'a>(entries: &'a [Entry], path: &str) -> Option<&'a Slot> {
    let covers = |prefix: &str| {
        path.strip_prefix(prefix)
            .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    };
    entries
        .iter()
        .find(|entry| covers(&entry.prefix))
        .map(|entry| &*entry.slot)
}

/// The host that a request names, without a port.
fn host<B>(request: &Request<B>) -> Option<&str> {
    if let Some(host) = request.uri().host() {
        return Some(host);
    }
    let host = request.headers().get(header::HOST)?.to_str().ok()?;
    // `[::1]:80` keeps its brackets, as the URI's host does.
    match host.rfind(':') {
        Some(colon) if !host[colon..].contains(']') => Some(&host[..colon]),
        _ => Some(host),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn slot(name: &str) -> Arc<Slot> {
        Arc::new(Slot::new(name.parse().unwrap()))
    }

    fn found(table: &Table, host: Option<&str>, uri: &str) -> Option<String> {
        let mut request = Request::builder().uri(uri);
        if let Some(host) = host {
            request = request.header("host", host);
        }
        let slot = table.find(&request.body(()).unwrap())?;
        Some(slot.module().to_string())
    }

    #[test]
    fn the_longest_prefix_wins_and_a_host_beats_none() {
        let route = |host: Option<&str>, prefix: &str| Route {
            host: host.map(str::to_owned),
            prefix: prefix.to_owned(),
        };
        let modules = [
            (slot("all"), vec![route(None, "/")]),
            (
                slot("pay"),
                vec![route(None, "/pay"), route(Some("pay.example"), "/")],
            ),
            (slot("pay-card"), vec![route(None, "/pay/card/")]),
        ];
        let table = Table::new(modules.iter().map(|(slot, routes)| (slot, &**routes)));
        let cases = [
            (None, "/", "all"),
            (None, "/payments", "all"),
            (None, "/pay", "pay"),
            (None, "/pay/", "pay"),
            (None, "/pay/x?y=/pay/card", "pay"),
            (None, "/pay/card", "pay-card"),
            (None, "/pay/card/1", "pay-card"),
            (Some("PAY.example:8080"), "/pay/card", "pay"),
            (Some("other.example"), "/pay/card", "pay-card"),
            (Some("[::1]:80"), "/x", "all"),
            (None, "http://pay.example/z", "pay"),
        ];
        for (host, uri, module) in cases {
            assert_eq!(
                found(&table, host, uri).as_deref(),
                Some(module),
                "{host:?} {uri}"
            );
        }
        assert_eq!(found(&Table::default(), None, "/"), None);
    }
}
