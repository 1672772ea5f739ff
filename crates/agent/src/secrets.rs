//! Secrets by reference: what a module's values name, this node alone knows.

use std::path::{Path, PathBuf};

use hotswap_core::ids::ModuleName;
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

    /// The values with every reference replaced by what it names: `env:NAME` by the variable
    /// `MODULE_SECRET_<MODULE>__NAME`, the module in upper case and with `_` for `-`; `file:NAME` by the file of that name
    /// in the module's folder of the folder of secrets, without the line's end.
    ///
    /// A module's secrets are its own: whoever may give one module values reads no other's by them.
    ///
    /// # Errors
    /// Which value names what isn't here; never what a secret is.
    pub(crate) fn resolve(&self, module: &ModuleName, values: Values) -> Result<Values, String> {
        values
            .into_iter()
            .map(|(key, value)| {
                let value = match value.split_once(':') {
                    Some(("env", name)) => variable(module, name),
                    Some(("file", name)) => self.file(module, name),
                    _ => Ok(value),
                };
                Ok((
                    key.clone(),
                    value.map_err(|why| format!("the value {key}: {why}"))?,
                ))
            })
            .collect()
    }

    fn file(&self, module: &ModuleName, name: &str) -> Result<String, String> {
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
                "file:{name} should name a file of the module's folder of secrets, of letters, digits, '.', - and _"
            ));
        }
        let folder = folder.join(module.as_str());
        read(&folder.join(name)).map_err(|why| format!("file:{name} in {}: {why}", folder.display()))
    }
}

fn variable(module: &ModuleName, name: &str) -> Result<String, String> {
    // So that no name of one module's is another's: `__` parts them, and no module's name begins or ends with it.
    if name.starts_with('_') || name.contains("__") {
        return Err(format!(
            "env:{name} should have no _ at its beginning, and no two in a row"
        ));
    }
    let module = module.as_str().to_ascii_uppercase().replace('-', "_");
    let variable = format!("{VARIABLE_PREFIX}{module}__{name}");
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

    fn module(name: &str) -> ModuleName {
        name.parse().unwrap()
    }

    #[test]
    fn a_reference_is_replaced_by_what_it_names_on_this_node_and_nothing_else_is_read() {
        let folder = tempfile::tempdir().unwrap();
        let shop = folder.path().join("shop");
        std::fs::create_dir(&shop).unwrap();
        std::fs::write(shop.join("db"), "s3cret\n").unwrap();
        std::fs::write(shop.join("long"), "x".repeat(20_000)).unwrap();
        std::fs::write(folder.path().join("all"), "nobody's").unwrap();
        let secrets = Secrets::new(Some(folder.path().to_owned()));
        let resolve = |name: &str, value: &str| secrets.resolve(&module(name), values(value));
        assert_eq!(resolve("shop", "file:db").unwrap()["PASSWORD"], "s3cret");
        assert_eq!(resolve("shop", "plain: text").unwrap()["PASSWORD"], "plain: text");
        for (of, value, part) in [
            ("shop", "file:../db", "should name a file"),
            ("shop", "file:/etc/passwd", "should name a file"),
            ("shop", "file:", "should name a file"),
            ("shop", "file:none", "No such file"),
            ("shop", "file:all", "No such file"),
            ("shop-two", "file:db", "No such file"),
            ("shop", "file:long", "at most 16384"),
            ("shop", "env:PATH", "no variable MODULE_SECRET_SHOP__PATH"),
            ("shop-two", "env:KEY", "no variable MODULE_SECRET_SHOP_TWO__KEY"),
            ("shop", "env:_KEY", "no _ at its beginning"),
            ("shop", "env:TWO__KEY", "no two in a row"),
        ] {
            let why = resolve(of, value).unwrap_err();
            assert!(why.contains(part) && why.contains("PASSWORD"), "{why}");
        }
        let why = Secrets::default()
            .resolve(&module("shop"), values("file:db"))
            .unwrap_err();
        assert!(why.contains("agent.secrets"), "{why}");
    }
}
