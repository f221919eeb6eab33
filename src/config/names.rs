//! The names of exported apps: templates such as `{app}.{namespace}.mesh.example`.

use crate::model::app::AppId;
use crate::model::name::{Name, NameError};

use super::problem::Wrong;

/// A checked template.
#[derive(Debug, Clone)]
pub(super) struct Template {
    written: String,
    /// The name's part from the first dot behind the last placeholder: every name that the template makes ends so.
    pub(super) suffix: Name,
}

const FIX: &str = "write a name with {app}, usually {namespace}, and a domain behind them: {app}.{namespace}.mesh.example";

impl Template {
    /// Checks a template with a short app: whether an app's real names fit is known only per app.
    pub(super) fn parse(written: &str) -> Result<Self, Wrong> {
        if !written.contains("{app}") {
            return Err(Wrong::new(
                "the template has no {app}, so all apps would have one name",
                FIX,
            ));
        }
        let rest = written.replace("{app}", "a").replace("{namespace}", "a");
        if rest.contains(['{', '}']) {
            return Err(Wrong::new("{app} and {namespace} are the only placeholders", FIX));
        }
        Name::parse(&rest).map_err(|error| Wrong::new(error.to_string(), FIX))?;
        let behind = written.rsplit('}').next().unwrap_or_default();
        let suffix = behind.split_once('.').map(|(_, suffix)| Name::parse(suffix));
        match suffix {
            Some(Ok(suffix)) => Ok(Self { written: written.to_owned(), suffix }),
            Some(Err(_)) | None => Err(Wrong::new(
                "nothing stands behind the last placeholder that tells these names from others",
                FIX,
            )),
        }
    }

    /// The name of an app.
    pub(super) fn expand(&self, app: &AppId) -> Result<Name, (String, NameError)> {
        // The namespace first: it has no braces, as no app has, so nothing is replaced twice.
        let name = self.written.replace("{namespace}", app.namespace()).replace("{app}", app.app());
        Name::parse(&name).map_err(|error| (name, error))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_template_makes_a_name_per_app() {
        let template = Template::parse("{app}-dapr.{namespace}.Svc.cluster.local").unwrap();
        assert_eq!(template.suffix.as_str(), "svc.cluster.local");
        let app = AppId::parse("shop/Check_out").unwrap();
        assert_eq!(
            template.expand(&app).unwrap().as_str(),
            "check_out-dapr.shop.svc.cluster.local"
        );
        let long = AppId::parse(&format!("shop/{}", "l".repeat(60))).unwrap();
        assert_eq!(template.expand(&long).unwrap_err().1, NameError::LabelTooLong);
    }

    #[test]
    fn a_template_must_tell_apps_apart() {
        for (written, message) in [
            ("checkout.mesh.example", "no {app}"),
            ("{app}.{zone}.example", "only placeholders"),
            ("{app}.{namespace}", "behind the last placeholder"),
            ("{app}.{namespace}-x", "behind the last placeholder"),
            ("{app} .example", "0x20"),
            ("{app}..example", "empty label"),
            ("{app}.{namespace}.", "behind the last placeholder"),
        ] {
            let wrong = Template::parse(written).unwrap_err();
            assert!(wrong.message.contains(message), "{written}: {}", wrong.message);
        }
    }
}
