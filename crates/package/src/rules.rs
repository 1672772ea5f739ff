//! What single values must look like; each rule gives the problem and what would be right, or nothing.

use crate::ebpf::Hook;

/// A rule for one text.
pub(crate) type Rule = fn(&str) -> Option<String>;

/// Longest entry file name: what a plain tar header holds.
const ENTRY_LEN_MAX: usize = 100;
/// Longest path or prefix.
const PATH_LEN_MAX: usize = 1_024;
/// Longest host name, that of DNS.
const HOST_LEN_MAX: usize = 253;
/// Longest name of a smoke check, in characters.
const CHECK_NAME_LEN_MAX: usize = 100;
/// Longest environment variable's name.
const VARIABLE_LEN_MAX: usize = 128;
const METHODS: [&str; 7] = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"];
/// Headers that the sender of a check makes itself, and a wrong value of which would break the connection.
const HEADERS_RESERVED: [&str; 4] = ["connection", "content-length", "transfer-encoding", "host"];

pub(crate) fn entry_problem(entry: &str) -> Option<String> {
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_');
    if entry == crate::MANIFEST_FILE {
        return Some("is the manifest itself; give the artifact's file name".to_owned());
    }
    let right =
        (1..=ENTRY_LEN_MAX).contains(&entry.len()) && entry.bytes().all(plain) && !entry.starts_with('.');
    (!right).then(|| {
        format!(
            "{:?} must be a plain file name in the manifest's folder: at most {ENTRY_LEN_MAX} letters, digits, \
             '.', '-', '_', not starting with '.'",
            shorten(entry)
        )
    })
}

pub(crate) fn host_problem(host: &str) -> Option<String> {
    let label = |label: &str| {
        !label.is_empty()
            && label.len() <= 63
            && label
                .bytes()
                .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    let right = host.len() <= HOST_LEN_MAX && host.split('.').all(label);
    (!right).then(|| {
        format!(
            "{:?} must be a host name in lower case without scheme and port, such as \"pay.example.com\"",
            shorten(host)
        )
    })
}

pub(crate) fn prefix_problem(prefix: &str) -> Option<String> {
    let wrong =
        path_problem(prefix).is_some() || prefix.contains('?') || (prefix.len() > 1 && prefix.ends_with('/'));
    wrong.then(|| {
        format!(
            "{:?} must be a plain path such as \"/payments\", without a '/' at its end or a query",
            shorten(prefix)
        )
    })
}

pub(crate) fn path_problem(path: &str) -> Option<String> {
    let before_query = path.split('?').next().unwrap_or_default();
    let plain = path
        .bytes()
        .all(|b| b.is_ascii_graphic() && !matches!(b, b'#' | b'"' | b'<' | b'>' | b'\\' | b'`'));
    let dots = before_query
        .split('/')
        .any(|segment| segment == "." || segment == "..");
    let right =
        path.starts_with('/') && !before_query.contains("//") && !dots && plain && path.len() <= PATH_LEN_MAX;
    (!right).then(|| {
        format!(
            "{:?} must be an absolute path of at most {PATH_LEN_MAX} characters, percent-encoded, without \
             \"//\", \".\" and \"..\", such as \"/payments/health\"",
            shorten(path)
        )
    })
}

pub(crate) fn check_name_problem(name: &str) -> Option<String> {
    let right = !name.trim().is_empty()
        && name.chars().count() <= CHECK_NAME_LEN_MAX
        && !name.chars().any(char::is_control);
    (!right).then(|| format!("must be 1 to {CHECK_NAME_LEN_MAX} characters on one line"))
}

pub(crate) fn method_problem(method: &str) -> Option<String> {
    (!METHODS.contains(&method))
        .then(|| format!("{:?} must be one of {}", shorten(method), METHODS.join(", ")))
}

pub(crate) fn header_problem(name: &str, value: &str) -> Option<String> {
    let token = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
    if name.is_empty() || !name.bytes().all(token) {
        return Some("is not a header's name, such as \"content-type\"".to_owned());
    }
    if HEADERS_RESERVED.contains(&name.to_ascii_lowercase().as_str()) {
        return Some("is set by the sender of the check; leave it out".to_owned());
    }
    let printable = value.bytes().all(|b| b == b'\t' || (b' '..=b'~').contains(&b));
    (!printable).then(|| "its value must be printable ASCII on one line".to_owned())
}

pub(crate) fn outbound_problem(host: &str) -> Option<String> {
    let (name, port) = host
        .rsplit_once(':')
        .map_or((host, None), |(name, port)| (name, Some(port)));
    let port_right =
        port.is_none_or(|port| port.parse::<u16>().is_ok_and(|n| n > 0 && n.to_string() == port));
    let name = name.strip_prefix("*.").unwrap_or(name);
    (!port_right || host_problem(name).is_some()).then(|| {
        format!(
            "{:?} must be \"host\", \"host:port\" or \"*.domain\" in lower case, such as \"api.example.com\"",
            shorten(host)
        )
    })
}

/// What a process may ask of the network: all of it.
pub(crate) fn network_problem(host: &str) -> Option<String> {
    (host != "*").then(|| {
        format!(
            "{:?} can't be enforced: native code is held to no single hosts. Ask for \"*\", the network, or leave it out",
            shorten(host)
        )
    })
}

/// What a process finds set anyway.
const VARIABLES_RESERVED: [&str; 9] = [
    "LISTEN_PID",
    "LISTEN_FDS",
    "LISTEN_FDNAMES",
    "NOTIFY_SOCKET",
    "HOTSWAP_MODULE",
    "HOTSWAP_VERSION",
    "HOTSWAP_NODE",
    "HOTSWAP_RUN",
    "TMPDIR",
];

pub(crate) fn process_variable_problem(name: &str) -> Option<String> {
    if VARIABLES_RESERVED.contains(&name) {
        return Some("is set by the node for every process; leave it out".to_owned());
    }
    variable_problem(name)
}

pub(crate) fn argument_problem(argument: &str) -> Option<String> {
    use crate::process::Process;
    let right = argument.len() <= Process::ARGUMENT_LEN_MAX && !argument.contains('\0');
    (!right).then(|| {
        format!(
            "must be at most {} bytes without a zero byte",
            Process::ARGUMENT_LEN_MAX
        )
    })
}

pub(crate) fn variable_problem(name: &str) -> Option<String> {
    let right = (1..=VARIABLE_LEN_MAX).contains(&name.len())
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
        && !name.starts_with(|c: char| c.is_ascii_digit());
    (!right).then(|| {
        format!(
            "{:?} must be a variable's name, such as \"LOG_LEVEL\"",
            shorten(name)
        )
    })
}

/// Longest name of a function or a map in an object.
const SYMBOL_LEN_MAX: usize = 64;
/// Longest name of an interface: the kernel's, without the zero at its end.
const INTERFACE_LEN_MAX: usize = 15;
/// Longest word for what a node has.
const FEATURE_LEN_MAX: usize = 64;

pub(crate) fn symbol_problem(name: &str) -> Option<String> {
    let right = (1..=SYMBOL_LEN_MAX).contains(&name.len())
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
        && !name.starts_with(|c: char| c.is_ascii_digit());
    (!right).then(|| {
        format!(
            "{:?} must be a name as C has them, such as \"packets\"",
            shorten(name)
        )
    })
}

pub(crate) fn interface_problem(name: &str) -> Option<String> {
    if let Some(variable) = name.strip_prefix('$') {
        return variable_problem(variable);
    }
    let right = (1..=INTERFACE_LEN_MAX).contains(&name.len())
        && name
            .bytes()
            .all(|b| b.is_ascii_graphic() && !matches!(b, b'/' | b':'))
        && !matches!(name, "." | "..");
    (!right).then(|| {
        format!(
            "{:?} must be an interface's name of at most {INTERFACE_LEN_MAX} characters, such as \"eth0\", or \
             \"$NAME\" for the variable that names it",
            shorten(name)
        )
    })
}

pub(crate) fn cgroup_problem(path: &str) -> Option<String> {
    if let Some(variable) = path.strip_prefix('$') {
        return variable_problem(variable);
    }
    let right = path.starts_with("/sys/fs/cgroup/")
        && path.len() <= PATH_LEN_MAX
        && !path.split('/').any(|part| part == "..")
        && !path.contains('\0');
    (!right).then(|| {
        format!(
            "{:?} must be a folder under /sys/fs/cgroup, or \"$NAME\" for the variable that names it",
            shorten(path)
        )
    })
}

/// `sched:sched_process_exec` for tracepoints; the kernel knows raw ones by their name alone.
pub(crate) fn tracepoint_problem(text: &str, hook: Hook) -> Option<String> {
    let is_name = |name: &str| {
        (1..=SYMBOL_LEN_MAX).contains(&name.len())
            && name
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-'))
    };
    let (right, form) = match hook {
        Hook::Tracepoint => (
            text.split_once(':')
                .is_some_and(|(category, name)| is_name(category) && is_name(name)),
            "CATEGORY:NAME, as in /sys/kernel/tracing/available_events",
        ),
        _ => (is_name(text), "the name alone"),
    };
    (!right).then(|| format!("{:?} must be {form}, such as {}", shorten(text), hook.example()))
}

pub(crate) fn feature_problem(word: &str) -> Option<String> {
    let right = (1..=FEATURE_LEN_MAX).contains(&word.len())
        && word
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.' | b':'));
    (!right).then(|| {
        format!(
            "{:?} must be a word that nodes name among what they have, such as \"btf\" or \"cgroup:v2\"",
            shorten(word)
        )
    })
}

/// Longest name of a module in the kernel: its own limit, without the zero at the end.
const KERNEL_NAME_LEN_MAX: usize = 55;
/// Longest release of a kernel, as nodes tell it.
const KERNEL_RELEASE_LEN_MAX: usize = 64;
/// Longest value of a parameter.
const PARAMETER_LEN_MAX: usize = 256;

pub(crate) fn kernel_name_problem(name: &str) -> Option<String> {
    let right = (1..=KERNEL_NAME_LEN_MAX).contains(&name.len())
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
    (!right).then(|| {
        format!(
            "{:?} must be a module's name in the kernel: at most {KERNEL_NAME_LEN_MAX} letters, digits and '_' (the \
             kernel makes '_' of '-'), such as \"hotswap_gate\"",
            shorten(name)
        )
    })
}

pub(crate) fn kernel_release_problem(release: &str) -> Option<String> {
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_' | b'+' | b'~');
    let right = (1..=KERNEL_RELEASE_LEN_MAX).contains(&release.len())
        && release.bytes().all(plain)
        && release.starts_with(|c: char| c.is_ascii_digit());
    (!right).then(|| {
        format!(
            "{:?} must be a kernel's release as uname -r says it, such as \"6.1.0-40-cloud-amd64\"",
            shorten(release)
        )
    })
}

pub(crate) fn parameter_problem(value: &str) -> Option<String> {
    let right = value.len() <= PARAMETER_LEN_MAX && value.bytes().all(|b| b.is_ascii_graphic() && b != b'"');
    (!right).then(|| {
        format!(
            "{:?} must be at most {PARAMETER_LEN_MAX} visible ASCII characters without blanks and quotes",
            shorten(value)
        )
    })
}

pub(crate) fn kernel_file_problem(path: &str) -> Option<String> {
    let plain = |b: u8| b.is_ascii_graphic();
    let right = (1..=PATH_LEN_MAX).contains(&path.len())
        && path.bytes().all(plain)
        && !path.split('/').any(|part| matches!(part, "." | ".."))
        && (!path.starts_with('/') || path.starts_with("/sys/") || path.starts_with("/proc/"));
    (!right).then(|| {
        format!(
            "{:?} must be a file under /sys or /proc, or one of the module's own folder in /sys/module, such as \
             \"parameters/requests\"",
            shorten(path)
        )
    })
}

fn shorten(text: &str) -> String {
    const ECHO_LEN_MAX: usize = 80;
    text.chars().take(ECHO_LEN_MAX).collect()
}
