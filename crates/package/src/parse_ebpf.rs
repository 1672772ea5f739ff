//! The part of a manifest that is an eBPF module's.

use std::collections::BTreeSet;

use crate::ebpf::{Attached, Counter, Counts, Ebpf, Hook, Invariants, MapUse, On, XdpMode};
use crate::manifest::Capabilities;
use crate::parse::Section;
use crate::rules;

mod probe;

/// Most characters of a name that is none of those that there are.
const NAME_SHOWN_MAX: usize = 40;

/// `None` only with a fault recorded.
pub(crate) fn read_ebpf(mut section: Section<'_>) -> Option<Ebpf> {
    let kernel = section.maybe("kernel");
    let features: Vec<String> = section.optional("features", Vec::new());
    if features.len() > Ebpf::FEATURES_MAX {
        let problem = format!("there are {}; at most {}", features.len(), Ebpf::FEATURES_MAX);
        section.fault("features", problem);
    }
    for (i, feature) in features.iter().enumerate() {
        if let Some(problem) = rules::feature_problem(feature) {
            section.fault(&format!("features[{i}]"), problem);
        }
    }
    let programs = section.list("programs", Ebpf::PROGRAMS_MAX, read_program);
    if programs.is_empty() {
        section.fault(
            "programs",
            "an ebpf module attaches at least one, such as [[ebpf.programs]] name = \"count\", attach = \"xdp\", \
             interface = \"eth0\"",
        );
    }
    let maps = section.list("maps", Ebpf::MAPS_MAX, read_map);
    let counters = section.list("counters", Ebpf::COUNTERS_MAX, read_counter);
    let probes = section.list("probes", Ebpf::PROBES_MAX, probe::read);
    let probes = probe::matched(probes, &programs).unwrap_or_else(|faults| {
        for (key, problem) in faults {
            section.fault(&key, problem);
        }
        Vec::new()
    });
    let invariants = section
        .section("invariants")
        .map_or_else(Invariants::default, read_invariants);
    once(&mut section, "programs", &programs, |program| &program.name);
    once(&mut section, "maps", &maps, |map| &map.name);
    for (i, map) in maps.iter().enumerate() {
        let program = map.as_ref().and_then(|map| map.migrate.as_ref());
        let mut attached = programs.iter().flatten();
        if program.is_some_and(|program| attached.any(|attached| attached.name == *program)) {
            section.fault(
                &format!("maps[{i}].migrate"),
                "is a program that is attached; give one that only moves entries",
            );
        }
    }
    let counted: BTreeSet<Counts> = counters.iter().flatten().map(|counter| counter.counts).collect();
    for (key, share, counts) in [
        ("drops-share-max", invariants.drops_share_max, Counts::Drops),
        ("errors-share-max", invariants.errors_share_max, Counts::Errors),
    ] {
        if share.is_some() && !counted.contains(&counts) {
            let name = counts.as_str();
            section.fault(
                &format!("invariants.{key}"),
                format!(
                    "nothing counts {name}; give [[ebpf.counters]] with counts = \"{name}\", or leave it out"
                ),
            );
        }
    }
    let sound = section.finish(&[
        "kernel",
        "features",
        "[[ebpf.programs]]",
        "[[ebpf.maps]]",
        "[[ebpf.counters]]",
        "[[ebpf.probes]]",
        "[ebpf.invariants]",
    ]);
    sound.then(|| Ebpf {
        kernel,
        features,
        programs: programs.into_iter().flatten().collect(),
        maps: maps.into_iter().flatten().collect(),
        counters: counters.into_iter().flatten().collect(),
        probes,
        invariants,
    })
}

/// What holds between the programs and what the module asks for.
pub(crate) fn variables_not_asked_for(ebpf: &Ebpf, asked: &Capabilities) -> Vec<(String, String)> {
    let mut faults = Vec::new();
    for (i, program) in ebpf.programs.iter().enumerate() {
        for (key, place) in [("interface", &program.interface), ("cgroup", &program.cgroup)] {
            if let Some(variable) = place.as_deref().and_then(|place| place.strip_prefix('$'))
                && !asked.environment.iter().any(|asked| asked == variable)
            {
                faults.push((
                    format!("ebpf.programs[{i}].{key}"),
                    format!("${variable} is not asked for; add it to [capabilities] environment"),
                ));
            }
        }
    }
    faults
}

fn once<T>(section: &mut Section<'_>, key: &str, items: &[Option<T>], name: fn(&T) -> &String) {
    let mut seen = BTreeSet::new();
    for (i, item) in items.iter().enumerate() {
        if item.as_ref().is_some_and(|item| !seen.insert(name(item))) {
            section.fault(&format!("{key}[{i}].name"), "is there twice; leave one out");
        }
    }
}

fn symbol(section: &mut Section<'_>, key: &str, should_be: &str) -> Option<String> {
    let name: Option<String> = section.required(key, should_be);
    if let Some(problem) = name.as_deref().and_then(rules::symbol_problem) {
        section.fault(key, problem);
    }
    name
}

fn read_hook(section: &mut Section<'_>) -> Option<Hook> {
    let names = Hook::ALL.map(Hook::as_str).join(", ");
    let name: String = section.required("attach", &format!("one of {names}"))?;
    let hook = Hook::ALL.into_iter().find(|hook| hook.as_str() == name);
    if hook.is_none() {
        let name: String = name.chars().take(NAME_SHOWN_MAX).collect();
        section.fault("attach", format!("{name:?} is no hook; there are {names}"));
    }
    hook
}

fn read_program(mut section: Section<'_>) -> Option<Attached> {
    let name = symbol(&mut section, "name", "the function's name in the object");
    let attach = read_hook(&mut section);
    let interface: Option<String> = section.maybe("interface");
    let cgroup: Option<String> = section.maybe("cgroup");
    let tracepoint: Option<String> = section.maybe("tracepoint");
    let mode: Option<XdpMode> = section.maybe("mode");
    if let Some(attach) = attach {
        let on = attach.on();
        for (key, is_given) in [
            (On::Interface.key(), interface.is_some()),
            (On::Cgroup.key(), cgroup.is_some()),
            (On::Tracepoint.key(), tracepoint.is_some()),
        ] {
            if key == on.key() && !is_given {
                let example = attach.example();
                section.fault(
                    key,
                    format!("is missing; {attach} is attached to one, such as {example}"),
                );
            } else if key != on.key() && is_given {
                section.fault(key, format!("is not for {attach}; leave it out"));
            }
        }
        let problem = tracepoint
            .as_deref()
            .and_then(|name| rules::tracepoint_problem(name, attach));
        if let Some(problem) = problem {
            section.fault("tracepoint", problem);
        }
        if mode.is_some() && attach != Hook::Xdp {
            section.fault("mode", format!("is for xdp, and this is {attach}; leave it out"));
        }
    }
    if let Some(problem) = interface.as_deref().and_then(rules::interface_problem) {
        section.fault("interface", problem);
    }
    if let Some(problem) = cgroup.as_deref().and_then(rules::cgroup_problem) {
        section.fault("cgroup", problem);
    }
    let sound = section.finish(&["name", "attach", "interface", "cgroup", "tracepoint", "mode"]);
    sound.then_some(())?;
    Some(Attached {
        name: name?,
        attach: attach?,
        interface,
        cgroup,
        tracepoint,
        mode: mode.unwrap_or_default(),
    })
}

fn read_map(mut section: Section<'_>) -> Option<MapUse> {
    let name = symbol(&mut section, "name", "the map's name in the object");
    let carry = section.optional("carry", false);
    let migrate: Option<String> = section.maybe("migrate");
    if let Some(program) = &migrate {
        if let Some(problem) = rules::symbol_problem(program) {
            section.fault("migrate", problem);
        }
        if !carry {
            section.fault(
                "migrate",
                "is for maps that the next version goes on with; give carry = true, or leave it out",
            );
        }
    }
    section.finish(&["name", "carry", "migrate"]).then_some(())?;
    Some(MapUse {
        name: name?,
        carry,
        migrate,
    })
}

fn read_counter(mut section: Section<'_>) -> Option<Counter> {
    let counts = section.required("counts", "requests, errors or drops");
    let map = symbol(&mut section, "map", "the name of the map that it is in");
    let index = section.bounded("index", 0, (0, Ebpf::INDEX_MAX));
    let field = section.bounded("field", 0, (0, Ebpf::FIELD_MAX));
    section
        .finish(&["counts", "map", "index", "field"])
        .then_some(())?;
    Some(Counter {
        counts: counts?,
        map: map?,
        index,
        field,
    })
}

fn read_invariants(mut section: Section<'_>) -> Invariants {
    let default = Invariants::default();
    let invariants = Invariants {
        drops_share_max: section.maybe("drops-share-max"),
        errors_share_max: section.maybe("errors-share-max"),
        window: section.bounded("window", default.window, Invariants::WINDOW),
        requests_min: section.bounded("requests-min", default.requests_min, Invariants::REQUESTS_MIN),
    };
    for (key, share) in [
        ("drops-share-max", invariants.drops_share_max),
        ("errors-share-max", invariants.errors_share_max),
    ] {
        if let Some(share) = share {
            section.within(key, share, Invariants::SHARE);
        }
    }
    section.finish(&["drops-share-max", "errors-share-max", "window", "requests-min"]);
    invariants
}
