//! The probes of an eBPF module's manifest.

use crate::ebpf::{Attached, Hook, Probe};
use crate::parse::Section;
use crate::rules;

/// A probe whose program isn't known yet, so that nobody knows what the program may return.
pub(super) struct Unmatched {
    name: String,
    program: String,
    packet: String,
    returns: String,
    output: Option<String>,
}

pub(super) fn read(mut section: Section<'_>) -> Option<Unmatched> {
    let name: Option<String> = section.required("name", "a few words, such as \"arp passes\"");
    if let Some(problem) = name.as_deref().and_then(rules::check_name_problem) {
        section.fault("name", problem);
    }
    let program = section.required("program", "the name of the program that it is sent through");
    let packet: Option<String> = section.required(
        "packet",
        "a frame in hexadecimal digits, from its Ethernet header on",
    );
    let returns = section.required("returns", "what the program returns, such as \"pass\"");
    let output: Option<String> = section.maybe("output");
    for (key, digits) in [("packet", &packet), ("output", &output)] {
        if let Some(problem) = digits.as_deref().and_then(|digits| Probe::bytes(digits).err()) {
            section.fault(
                key,
                format!("{problem}; give a frame in hexadecimal digits, from its Ethernet header on"),
            );
        }
    }
    let sound = section.finish(&["name", "program", "packet", "returns", "output"]);
    sound.then_some(())?;
    Some(Unmatched {
        name: name?,
        program: program?,
        packet: packet?,
        returns: returns?,
        output,
    })
}

/// The probes with what their programs return; each fault with its key.
pub(super) fn matched(
    unmatched: Vec<Option<Unmatched>>,
    programs: &[Option<Attached>],
) -> Result<Vec<Probe>, Vec<(String, String)>> {
    let mut faults = Vec::new();
    let mut probes = Vec::new();
    for (i, probe) in unmatched.into_iter().enumerate() {
        let Some(probe) = probe else { continue };
        let mut programs = programs.iter().flatten();
        let Some(program) = programs.find(|program| program.name == probe.program) else {
            let problem = format!("there is no program {:?} among [[ebpf.programs]]", probe.program);
            faults.push((format!("probes[{i}].program"), problem));
            continue;
        };
        match returned(program.attach, &probe.returns) {
            Ok(returns) => probes.push(Probe {
                name: probe.name,
                program: probe.program,
                packet: probe.packet,
                returns,
                output: probe.output,
            }),
            Err((key, problem)) => faults.push((format!("probes[{i}].{key}"), problem)),
        }
    }
    if faults.is_empty() {
        Ok(probes)
    } else {
        Err(faults)
    }
}

fn returned(hook: Hook, name: &str) -> Result<i32, (&'static str, String)> {
    let verdicts = hook.verdicts();
    if verdicts.is_empty() {
        let can = Hook::ALL.into_iter().filter(|hook| !hook.verdicts().is_empty());
        let can: Vec<&str> = can.map(Hook::as_str).collect();
        let problem = format!(
            "is at {hook}, where the kernel can't be asked to send a packet through; it can at {}",
            can.join(", ")
        );
        return Err(("program", problem));
    }
    let known = verdicts.iter().find(|(known, _)| *known == name);
    known.map(|(_, number)| *number).ok_or_else(|| {
        let names: Vec<&str> = verdicts.iter().map(|(name, _)| *name).collect();
        let name: String = name.chars().take(super::NAME_SHOWN_MAX).collect();
        (
            "returns",
            format!(
                "{name:?} is nothing that {hook} knows; there are {}",
                names.join(", ")
            ),
        )
    })
}
