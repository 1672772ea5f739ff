//! Secrets by reference: what a module's values name, this node alone knows.

use std::path::{Path, PathBuf};

use hotswap_core::values::Values;

/// Longest secret, in bytes.
const SECRET_BYTES_MAX: u64 = 16 << 10;
/// What the variables of this process begin with that modules may be given, so that no value can name another one.
const VARIABLE_PREFIX: &str = "MODULE_SECRET_";

/// Where this node's secrets are.
#[derive(Clone, Debug, Default)]
pub(crate) struct Secrets {
    /// The folder of `file:NAME`.
    folder: Option<PathBuf>,
}

impl Secrets {
    pub(crate) fn new(folder: Option<PathBuf>) -> Self {
        Self { folder }
    }

    /// The values with every reference replaced by what it names: `env:NAME` by the variable `MODULE_SECRET_NAME`,
    /// `file:NAME` by the file of that name in the folder of secrets, without the line's end.
    ///
    /// # Errors
    /// Which value names what isn't here; never what a secret is.
    pub(crate) fn resolve(&self, values: Values) -> Result<Values, String> {
        values
            .into_iter()
            .map(|(key, value)| {
                let value = match value.split_once(':') {
                    Some(("env", name)) => variable(name),
                    Some(("file", name)) => self.file(name),
                    _ => Ok(value),
                };
                Ok((
                    key.clone(),
                    value.map_err(|why| format!("the value {key}: {why}"))?,
                ))
            })
            .collect()
    }

    fn file(&self, name: &str) -> Result<String, String> {
        let folder = self.folder.as_deref().ok_or_else(|| {
            format!("file:{name} names a secret, and this node has no folder of them; set agent.secrets")
        })?;
        let plain = !name.is_empty()
            && !name.starts_with('.')
            && name
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'));
        if !plain {
            return Err(format!(
                "file:{name} should name a file of the folder of secrets, of letters, digits, '.', - and _"
            ));
        }
        read(&folder.join(name)).map_err(|why| format!("file:{name} in {}: {why}", folder.display()))
    }
}

fn variable(name: &str) -> Result<String, String> {
    let variable = format!("{VARIABLE_PREFIX}{name}");
    std::env::var(&variable)
        .map_err(|_| format!("env:{name} names a secret, and this node has no variable {variable}"))
}

fn read(file: &Path) -> Result<String, String> {
    let size = std::fs::metadata(file).map_err(|error| error.to_string())?.len();
    if size > SECRET_BYTES_MAX {
        return Err(format!("has {size} bytes, at most {SECRET_BYTES_MAX} may be"));
    }
    let mut text = std::fs::read_to_string(file).map_err(|error| error.to_string())?;
    text.truncate(text.trim_end_matches(['\r', '\n']).len());
    if text.contains('\0') {
        return Err("holds a zero byte, which no variable can".to_owned());
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values(value: &str) -> Values {
        Values::from([("PASSWORD".to_owned(), value.to_owned())])
    }

    #[test]
    fn a_reference_is_replaced_by_what_it_names_on_this_node_and_nothing_else_is_read() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("db"), "s3cret\n").unwrap();
        std::fs::write(folder.path().join("long"), "x".repeat(20_000)).unwrap();
        let secrets = Secrets::new(Some(folder.path().to_owned()));
        let found = secrets.resolve(values("file:db")).unwrap();
        assert_eq!(found["PASSWORD"], "s3cret");
        assert_eq!(
            secrets.resolve(values("plain: text")).unwrap()["PASSWORD"],
            "plain: text"
        );
        for (value, part) in [
            ("file:../db", "should name a file"),
            ("file:/etc/passwd", "should name a file"),
            ("file:", "should name a file"),
            ("file:none", "No such file"),
            ("file:long", "at most 16384"),
            ("env:PATH", "no variable MODULE_SECRET_PATH"),
        ] {
            let why = secrets.resolve(values(value)).unwrap_err();
            assert!(why.contains(part) && why.contains("PASSWORD"), "{why}");
        }
        let why = Secrets::default().resolve(values("file:db")).unwrap_err();
        assert!(why.contains("agent.secrets"), "{why}");
    }
}
