//! Roles, and what a token may be narrowed to.

use std::fmt;
use std::str::FromStr;

use hotswap_core::ids::{EnvName, ModuleName};
use serde::{Deserialize, Serialize};

/// Most patterns of modules, and most environments, of one token.
pub const SCOPE_ENTRIES_MAX: usize = 32;
/// Longest pattern of module names, in bytes: as long as a name.
const PATTERN_LEN_MAX: usize = 64;

/// What somebody may do. Each role may do what those before it may.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Role {
    /// Reads.
    Viewer = 1,
    /// Also creates, rolls back and steers deployments, and pushes modules.
    Deployer = 2,
    /// Also approves, and manages users, nodes and keys.
    Admin = 3,
}

impl Role {
    /// All of them, least first.
    pub const ALL: [Self; 3] = [Self::Viewer, Self::Deployer, Self::Admin];

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Viewer => "Viewer",
            Self::Deployer => "Deployer",
            Self::Admin => "Admin",
        }
    }

    /// Every role that somebody with this one holds, highest first, in the numbers of the contract.
    pub fn held(self) -> Vec<u8> {
        let held = Self::ALL.into_iter().rev().filter(|role| *role <= self);
        held.map(|role| role as u8).collect()
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Role {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let found = Self::ALL
            .into_iter()
            .find(|role| role.name().eq_ignore_ascii_case(text));
        found.ok_or_else(|| "must be Viewer, Deployer or Admin".to_owned())
    }
}

/// What commands of a token may concern. Reading is not narrowed. Empty lists narrow nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Scope {
    /// Names of modules; a `*` stands for any characters.
    #[serde(default)]
    pub modules: Vec<String>,
    /// Environments.
    #[serde(default)]
    pub environments: Vec<EnvName>,
}

impl Scope {
    /// Whether it narrows nothing.
    pub fn is_everything(&self) -> bool {
        self.modules.is_empty() && self.environments.is_empty()
    }

    /// Why a command is out of it; `None` where it is not. What names no module, or no environment, is out of a scope
    /// that narrows those.
    pub fn refuses(&self, module: Option<&ModuleName>, environment: Option<&EnvName>) -> Option<String> {
        let patterns = &self.modules;
        let fits = |name: &ModuleName| patterns.iter().any(|pattern| matches(pattern, name.as_str()));
        if !patterns.is_empty() && !module.is_some_and(fits) {
            let what = module.map_or_else(|| "no single module".to_owned(), |name| format!("module {name}"));
            return Some(format!(
                "this token is for the modules {}, and the request is about {what}",
                patterns.join(", ")
            ));
        }
        let same = |name: &EnvName| {
            self.environments
                .iter()
                .any(|allowed| allowed.as_str().eq_ignore_ascii_case(name.as_str()))
        };
        if !self.environments.is_empty() && !environment.is_some_and(same) {
            let allowed: Vec<&str> = self.environments.iter().map(EnvName::as_str).collect();
            let what = environment.map_or_else(|| "no single environment".to_owned(), ToString::to_string);
            return Some(format!(
                "this token is for the environments {}, and the request is about {what}",
                allowed.join(", ")
            ));
        }
        None
    }

    /// A pattern, or what is wrong with it.
    ///
    /// # Errors
    /// A character that no module's name has.
    pub fn check_pattern(pattern: &str) -> Result<(), String> {
        let known = |b: u8| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'-' | b'*');
        if (1..=PATTERN_LEN_MAX).contains(&pattern.len()) && pattern.bytes().all(known) {
            Ok(())
        } else {
            Err(format!(
                "{pattern:?} must be 1 to {PATTERN_LEN_MAX} of a-z, 0-9, - and *, such as payment-*"
            ))
        }
    }
}

/// Whether a name fits a pattern in which `*` stands for any characters. Linear: each star gives back at most once.
pub(crate) fn matches(pattern: &str, name: &str) -> bool {
    let (pattern, name) = (pattern.as_bytes(), name.as_bytes());
    let (mut p, mut n) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    while n < name.len() {
        if pattern.get(p) == Some(&b'*') {
            star = Some((p, n));
            p += 1;
        } else if pattern.get(p) == Some(&name[n]) {
            p += 1;
            n += 1;
        } else if let Some((at, from)) = star {
            star = Some((at, from + 1));
            p = at + 1;
            n = from + 1;
        } else {
            return false;
        }
    }
    pattern[p..].iter().all(|&b| b == b'*')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn roles_are_numbers_and_hold_those_below() {
        assert_eq!(Role::Admin.held(), [3, 2, 1]);
        assert_eq!(Role::Viewer.held(), [1]);
        assert!(Role::Viewer < Role::Deployer && Role::Deployer < Role::Admin);
        assert_eq!("admin".parse(), Ok(Role::Admin));
        assert!("root".parse::<Role>().is_err());
    }

    #[test]
    fn patterns_of_modules() {
        for (pattern, name, fits) in [
            ("payment-*", "payment-processor", true),
            ("payment-*", "payments", false),
            ("*", "anything", true),
            ("*-service", "authentication-service", true),
            ("*-service", "service-mesh", false),
            ("a*b*c", "axxbyyc", true),
            ("a*b*c", "axxbyy", false),
            ("shop", "shop", true),
            ("shop", "shops", false),
        ] {
            assert_eq!(matches(pattern, name), fits, "{pattern} {name}");
        }
    }

    #[test]
    fn a_scope_refuses_what_it_does_not_name() {
        let scope = Scope {
            modules: vec!["shop-*".to_owned()],
            environments: vec!["QA".parse().unwrap()],
        };
        let (shop, other) = ("shop-front".parse().unwrap(), "bank".parse().unwrap());
        let (qa, production) = ("qa".parse().unwrap(), "Production".parse().unwrap());
        assert_eq!(scope.refuses(Some(&shop), Some(&qa)), None);
        assert!(scope.refuses(Some(&other), Some(&qa)).is_some());
        assert!(scope.refuses(Some(&shop), Some(&production)).is_some());
        assert!(scope.refuses(None, None).is_some(), "what is about everything");
        assert_eq!(Scope::default().refuses(None, None), None);
    }
}
