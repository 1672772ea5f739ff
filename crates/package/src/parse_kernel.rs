//! The part of a manifest that is a kernel module's.

use std::collections::{BTreeMap, BTreeSet};

use crate::kernel::{FileCheck, FileCounter, Kernel, KernelBuild, Style};
use crate::parse::Section;
use crate::rules;

/// `None` only with a fault recorded.
pub(crate) fn read_kernel(mut section: Section<'_>) -> Option<Kernel> {
    let module: Option<String> = section.required("module", "its name in the kernel, as /sys/module has it");
    if let Some(problem) = module.as_deref().and_then(rules::kernel_name_problem) {
        section.fault("module", problem);
    }
    let style = section.optional("style", Style::default());
    let gate: Option<String> = section.maybe("gate");
    match (style, &gate) {
        (Style::Gated, None) => section.fault(
            "gate",
            "is missing; a gated module says which module's gate it is called through, such as \"hotswap_gate\"",
        ),
        (Style::Plain | Style::Livepatch, Some(_)) => {
            section.fault("gate", format!("is for gated modules, and this one is {style}; leave it out"));
        }
        _ => {}
    }
    if let Some(problem) = gate.as_deref().and_then(rules::kernel_name_problem) {
        section.fault("gate", problem);
    }
    let builds = section.list("builds", Kernel::BUILDS_MAX, read_build);
    if builds.is_empty() {
        section.fault(
            "builds",
            "a kernel module has at least one, such as [[kernel.builds]] release = \"6.1.0-40-amd64\", file = \
             \"module-6.1.0-40.ko\"",
        );
    }
    once(&mut section, "release", &builds, |build| &build.release);
    once(&mut section, "file", &builds, |build| &build.file);
    let parameters: BTreeMap<String, String> = section.optional("parameters", BTreeMap::new());
    if parameters.len() > Kernel::PARAMETERS_MAX {
        let problem = format!(
            "there are {}; at most {}",
            parameters.len(),
            Kernel::PARAMETERS_MAX
        );
        section.fault("parameters", problem);
    }
    for (name, value) in &parameters {
        let problem = rules::symbol_problem(name).or_else(|| rules::parameter_problem(value));
        if let Some(problem) = problem {
            section.fault(&format!("parameters.{name}"), problem);
        }
    }
    let deadline = section.bounded("deadline", Kernel::DEADLINE_DEFAULT, Kernel::DEADLINE);
    let checks = section.list("checks", Kernel::CHECKS_MAX, read_check);
    let counters = section.list("counters", Kernel::COUNTERS_MAX, read_counter);
    section
        .finish(&[
            "module",
            "style",
            "gate",
            "[[kernel.builds]]",
            "parameters",
            "deadline",
            "[[kernel.checks]]",
            "[[kernel.counters]]",
        ])
        .then_some(())?;
    Some(Kernel {
        module: module?,
        style,
        gate,
        builds: builds.into_iter().flatten().collect(),
        parameters,
        deadline,
        checks: checks.into_iter().flatten().collect(),
        counters: counters.into_iter().flatten().collect(),
    })
}

fn once(
    section: &mut Section<'_>,
    key: &str,
    builds: &[Option<KernelBuild>],
    of: fn(&KernelBuild) -> &String,
) {
    let mut seen = BTreeSet::new();
    for (i, build) in builds.iter().enumerate() {
        if build.as_ref().is_some_and(|build| !seen.insert(of(build))) {
            section.fault(&format!("builds[{i}].{key}"), "is there twice; leave one out");
        }
    }
}

fn read_build(mut section: Section<'_>) -> Option<KernelBuild> {
    let release: Option<String> = section.required("release", "the kernel's release, as uname -r says it");
    if let Some(problem) = release.as_deref().and_then(rules::kernel_release_problem) {
        section.fault("release", problem);
    }
    let file: Option<String> = section.required("file", "the module's file for this kernel");
    if let Some(problem) = file.as_deref().and_then(rules::entry_problem) {
        section.fault("file", problem);
    }
    section.finish(&["release", "file"]).then_some(())?;
    Some(KernelBuild {
        release: release?,
        file: file?,
    })
}

fn read_file(section: &mut Section<'_>) -> Option<String> {
    let file: Option<String> = section.required("file", "a file such as \"parameters/requests\"");
    if let Some(problem) = file.as_deref().and_then(rules::kernel_file_problem) {
        section.fault("file", problem);
    }
    file
}

fn read_check(mut section: Section<'_>) -> Option<FileCheck> {
    let file = read_file(&mut section);
    let equals: Option<String> = section.maybe("equals");
    let at_least: Option<i64> = section.maybe("at-least");
    let at_most: Option<i64> = section.maybe("at-most");
    let bounds = at_least.is_some() || at_most.is_some();
    if equals.is_some() == bounds {
        section.fault(
            "equals",
            "give either equals = \"TEXT\", or at-least or at-most or both as numbers",
        );
    }
    section
        .finish(&["file", "equals", "at-least", "at-most"])
        .then_some(())?;
    Some(FileCheck {
        file: file?,
        equals,
        at_least,
        at_most,
    })
}

fn read_counter(mut section: Section<'_>) -> Option<FileCounter> {
    let counts = section.required("counts", "requests, errors or drops");
    let file = read_file(&mut section);
    section.finish(&["counts", "file"]).then_some(())?;
    Some(FileCounter {
        counts: counts?,
        file: file?,
    })
}
