//! The functions of the muBench cell and what their parameters must be: the cell reads them at its first request,
//! and a model that it would refuse then is refused at the start.
//!
//! - A parameter that is not there takes its default; one that is not known here is passed over, as muBench does, unless it is
//!   nearly one that is.

use cellmesh_dpu::config::DpuConfig;
use serde_json::{Map, Value};

use crate::host::CellLimits;

/// What a parameter must be.
#[derive(Debug, Clone, Copy)]
enum Kind {
    /// `true` or `false`.
    Flag,
    /// A whole number from the first to the second.
    Count(u32, u32),
    /// Two whole numbers, the second not less than the first.
    Range,
    /// A number of the unit, from 0.
    Amount(&'static str),
    /// As the last, or `null`: the default.
    AmountOrNull(&'static str),
    /// A text.
    Text,
    /// An object with these.
    Object(&'static [(&'static str, Kind)]),
    /// An object whose keys mean nothing here.
    AnyObject,
}

/// As much as a whole number may be.
const AMOUNT_MOST: f64 = u32::MAX as f64;

/// Whole numbers travel as 32 bits.
const COUNT: Kind = Kind::Count(0, u32::MAX);

/// Copies of the computation of pi: each is a step of a graph. Source: the muBench cell.
const COPIES: Kind = Kind::Count(1, 1024);

const MEAN: Kind = Kind::AmountOrNull("kB");

/// Source: muBench's manual, "Internal-Service functions".
const FUNCTIONS: [(&str, Kind); 3] = [
    (
        "loader",
        Kind::Object(&[
            (
                "cpu_stress",
                Kind::Object(&[
                    ("run", Kind::Flag),
                    ("range_complexity", Kind::Range),
                    ("thread_pool_size", COPIES),
                    ("trials", COUNT),
                ]),
            ),
            (
                "memory_stress",
                Kind::Object(&[("run", Kind::Flag), ("memory_size", COUNT), ("memory_io", COUNT)]),
            ),
            (
                "disk_stress",
                Kind::Object(&[
                    ("run", Kind::Flag),
                    ("tmp_file_name", Kind::Text),
                    ("disk_write_block_count", COUNT),
                    ("disk_write_block_size", COUNT),
                ]),
            ),
            ("sleep_stress", Kind::Object(&[("run", Kind::Flag), ("sleep_time", Kind::Amount("seconds"))])),
            ("mean_response_size", MEAN),
            ("mean_bandwidth", MEAN),
        ]),
    ),
    (
        "compute_pi",
        Kind::Object(&[
            ("range_complexity", Kind::Range),
            ("mean_response_size", MEAN),
            ("mean_bandwidth", MEAN),
        ]),
    ),
    ("colosseum", Kind::AnyObject),
];

/// Something wrong with a function.
pub(super) struct Wrong {
    /// Path of the parameter behind the function's name; empty for the function itself.
    pub(super) at: String,
    /// What is wrong.
    pub(super) wrong: String,
    /// What would be right.
    pub(super) right: String,
}

/// Everything that is wrong with a function and its parameters.
pub(super) fn check(function: &str, parameters: &Value) -> Vec<Wrong> {
    let mut found = Vec::new();
    match FUNCTIONS.iter().find(|(name, _)| *name == function) {
        Some((_, kind)) => kind.check(String::new(), parameters, &mut found),
        None => found.push(Wrong {
            at: String::new(),
            wrong: "is no function of the muBench cell".into(),
            right: format!("name one of: {}", FUNCTIONS.map(|(name, _)| name).join(", ")),
        }),
    }
    found
}

/// Means of bodies, in kB, of which one in a thousand is longer than a message may be. Source: an exponential length is beyond
/// x with probability exp(-x / mean), and exp(-16777 / 2400) = 0.0009.
const MEAN_OF_WHOLE_BODIES: f64 = 2400.0;

/// What a function will ask for and not get with the limits that there are unless config has others, each with the path of its parameter.
pub(super) fn beyond(function: &str, parameters: &Value) -> Vec<String> {
    let memory = CellLimits::default().memory_bytes_max as f64;
    let seconds = DpuConfig::default().request_timeout.0.as_secs_f64();
    let number = |value: &Value, name| value.get(name).and_then(Value::as_f64).unwrap_or_default();
    let stress = |name| parameters.get(name).filter(|stress| stress.get("run") == Some(&Value::Bool(true)));
    let mut found = Vec::new();
    if function == "loader" {
        let more_memory = |bytes: f64| {
            (bytes > memory)
                .then(|| format!("more than the {} MiB of memory of a cell", memory / f64::from(1 << 20)))
        };
        let wants = |name, parameter, bytes_each: f64| {
            let value = number(stress(name)?, parameter);
            Some(format!("{name}.{parameter}: {value} is {}", more_memory(value * bytes_each)?))
        };
        found.extend(wants("memory_stress", "memory_size", 1000.0));
        found.extend(wants("disk_stress", "disk_write_block_size", 1.0));
        let sleep = stress("sleep_stress").map(|stress| number(stress, "sleep_time"));
        found.extend(sleep.filter(|sleep| *sleep > seconds).map(|sleep| {
            format!(
                "sleep_stress.sleep_time: {sleep} s are more than the {seconds} s that a request may take"
            )
        }));
    }
    for name in ["mean_response_size", "mean_bandwidth"] {
        let mean = number(parameters, name);
        if mean > MEAN_OF_WHOLE_BODIES {
            found.push(format!(
                "{name}: {mean} kB: some bodies are longer than the 16 MiB of a message, and are cut there"
            ));
        }
    }
    found
}

/// A name that muBench's generators give to a function of a model. It means nothing when the function runs.
const FUNCTION_ID: &str = "function_id";

/// Path behind the function's name, what is there, and the keys that it may have.
pub(super) type ParameterTable<'v> = (String, &'v Map<String, Value>, Vec<&'static str>);

/// The tables of a function's parameters.
pub(super) fn tables<'v>(function: &str, parameters: &'v Value) -> Vec<ParameterTable<'v>> {
    let kind = FUNCTIONS.iter().find(|(name, _)| *name == function).map(|(_, kind)| *kind);
    let (Some(Kind::Object(known)), Some(given)) = (kind, parameters.as_object()) else { return Vec::new() };
    let names = |known: &'static [(&'static str, Kind)]| known.iter().map(|(name, _)| *name);
    let inner = known.iter().filter_map(|(name, kind)| {
        let (Kind::Object(known), Some(given)) = (kind, given.get(*name)?.as_object()) else { return None };
        Some((format!(".{name}"), given, names(known).collect()))
    });
    std::iter::once((String::new(), given, names(known).chain([FUNCTION_ID]).collect()))
        .chain(inner)
        .collect()
}

impl Kind {
    /// The tree of kinds is three deep, whatever the value is.
    fn check(self, at: String, value: &Value, found: &mut Vec<Wrong>) {
        if let Self::Object(parameters) = self
            && let Value::Object(given) = value
        {
            for (name, kind) in parameters {
                if let Some(value) = given.get(*name) {
                    kind.check(format!("{at}.{name}"), value, found);
                }
            }
        } else if !self.fits(value) {
            let wrong = if matches!(self, Self::Object(_) | Self::AnyObject) {
                "is not an object".into()
            } else {
                format!("{value} does not fit")
            };
            found.push(Wrong { at, wrong, right: self.right() });
        }
    }

    fn fits(self, value: &Value) -> bool {
        match self {
            Self::Flag => value.is_boolean(),
            Self::Count(least, most) => whole(value).is_some_and(|count| (least..=most).contains(&count)),
            Self::Range => value.as_array().is_some_and(|ends| match ends.as_slice() {
                [least, most] => whole(least).zip(whole(most)).is_some_and(|(least, most)| least <= most),
                _ => false,
            }),
            Self::AmountOrNull(_) if value.is_null() => true,
            Self::Amount(_) | Self::AmountOrNull(_) => {
                value.as_f64().is_some_and(|amount| (0.0..=AMOUNT_MOST).contains(&amount))
            }
            Self::Text => value.is_string(),
            Self::Object(_) | Self::AnyObject => value.is_object(),
        }
    }

    fn right(self) -> String {
        match self {
            Self::Flag => "write true or false".into(),
            Self::Count(least, most) => format!("write a whole number from {least} to {most}"),
            Self::Range => "write two whole numbers, the second not less than the first: [100, 200]".into(),
            Self::Amount(unit) | Self::AmountOrNull(unit) => {
                format!("write a number of {unit} from 0 to {AMOUNT_MOST}")
            }
            Self::Text => "write text in quotes".into(),
            Self::Object(_) | Self::AnyObject => "write the function's parameters: {}".into(),
        }
    }
}

/// Whether the cell takes this for a number of things.
pub(super) fn is_count(value: &Value) -> bool {
    COUNT.fits(value)
}

/// A whole number in any spelling: `7`, `7.0`.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "checked to be a whole number that fits"
)]
fn whole(value: &Value) -> Option<u32> {
    let number = value.as_f64()?;
    (number.fract() == 0.0 && (0.0..=f64::from(u32::MAX)).contains(&number)).then_some(number as u32)
}
