//! The shape of a service's entry in a work model, as far as it says what the service does. Other keys are
//! hints for whoever deploys it.

use std::collections::HashMap;
use std::fmt;

use serde::Deserialize;
use serde::de::{self, Deserializer, IgnoredAny, MapAccess, Visitor};

use crate::body::ResponseBody;
use crate::stress::{Count, Cpu, Disk, Internal, Memory, Range, Sleep, Stress};

/// Parallel copies of the pi computation that a request may ask for: each is a step of the graph, which has
/// a limit.
const THREAD_POOL_SIZE_MAX: usize = 1024;

/// The entry.
#[derive(Debug, Deserialize)]
#[serde(default)]
#[derive(Default)]
pub(super) struct Service {
    pub(super) external_services: Vec<Group>,
    pub(super) internal_service: Function,
    pub(super) alternative_behaviors: HashMap<String, Alternative>,
}

/// A value of `alternative_behaviors`.
#[derive(Debug, Deserialize)]
pub(super) struct Alternative {
    #[serde(alias = "internal_service")]
    pub(super) internal_services: Option<Function>,
    pub(super) external_services: Option<Vec<Group>>,
}

/// An element of `external_services`.
#[derive(Debug, Deserialize)]
pub(super) struct Group {
    #[serde(default)]
    pub(super) services: Vec<String>,
    pub(super) seq_len: Option<Count>,
    #[serde(default)]
    pub(super) probabilities: HashMap<String, f64>,
}

/// `internal_service`: `{name: parameters}`. Of several the first counts, as in muBench.
#[derive(Debug, Default)]
pub(super) enum Function {
    #[default]
    None,
    Loader(Loader),
    ComputePi(ComputePi),
    Colosseum,
}

/// The parameters of `loader`.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Loader {
    cpu_stress: Cpu,
    memory_stress: Memory,
    disk_stress: Disk,
    sleep_stress: Sleep,
    mean_response_size: Option<f64>,
    /// The older name of `mean_response_size`.
    mean_bandwidth: Option<f64>,
}

/// The parameters of `compute_pi`.
#[derive(Debug, Deserialize)]
#[serde(default)]
pub(super) struct ComputePi {
    range_complexity: Range,
    mean_response_size: Option<f64>,
    mean_bandwidth: Option<f64>,
}

impl Default for ComputePi {
    fn default() -> Self {
        Self { range_complexity: Range::of(50, 100), mean_response_size: None, mean_bandwidth: None }
    }
}

impl Function {
    /// What the function does.
    pub(super) fn internal(self) -> Result<Internal, String> {
        match self {
            Self::None => Ok(Internal { stress: Stress::default(), body: ResponseBody::Empty }),
            Self::Loader(loader) => {
                loader.internal().map_err(|problem| format!("internal_service.loader.{problem}"))
            }
            Self::ComputePi(pi) => {
                pi.internal().map_err(|problem| format!("internal_service.compute_pi.{problem}"))
            }
            Self::Colosseum => {
                let body = ResponseBody::Fixed(include_str!("colosseum.txt").to_owned());
                Ok(Internal { stress: Stress::default(), body })
            }
        }
    }
}

impl Loader {
    fn internal(self) -> Result<Internal, String> {
        let pool_size = self.cpu_stress.thread_pool_size.get();
        if !(1..=THREAD_POOL_SIZE_MAX).contains(&pool_size) {
            return Err(format!(
                "cpu_stress.thread_pool_size = {pool_size}: must be from 1 to {THREAD_POOL_SIZE_MAX}"
            ));
        }
        self.sleep_stress.check().map_err(|problem| format!("sleep_stress.{problem}"))?;
        let stress = Stress {
            cpu: self.cpu_stress.run.then_some(self.cpu_stress),
            memory: self.memory_stress.run.then_some(self.memory_stress),
            disk: self.disk_stress.run.then_some(self.disk_stress),
            sleep: self.sleep_stress.run.then_some(self.sleep_stress),
        };
        let mean = mean(self.mean_response_size.or(self.mean_bandwidth), 11.0)?;
        Ok(Internal { stress, body: ResponseBody::Random(mean) })
    }
}

impl ComputePi {
    fn internal(self) -> Result<Internal, String> {
        let cpu = Cpu { run: true, range_complexity: self.range_complexity, ..Cpu::default() };
        let mean = mean(self.mean_response_size.or(self.mean_bandwidth), 10.0)?;
        Ok(Internal {
            stress: Stress { cpu: Some(cpu), ..Stress::default() },
            body: ResponseBody::Repeated(mean),
        })
    }
}

fn mean(given: Option<f64>, default: f64) -> Result<f64, String> {
    match given {
        Some(mean) if mean >= 0.0 => Ok(mean),
        Some(mean) => Err(format!("mean_response_size = {mean}: must be a number of kB from 0")),
        None => Ok(default),
    }
}

impl<'de> Deserialize<'de> for Function {
    fn deserialize<D: Deserializer<'de>>(reader: D) -> Result<Self, D::Error> {
        reader.deserialize_map(FirstFunction)
    }
}

struct FirstFunction;

impl<'de> Visitor<'de> for FirstFunction {
    type Value = Function;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("{function: parameters}")
    }

    fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<Function, M::Error> {
        let Some(name) = map.next_key::<String>()? else { return Ok(Function::None) };
        let function = match name.as_str() {
            "loader" => Function::Loader(map.next_value()?),
            "compute_pi" => Function::ComputePi(map.next_value()?),
            "colosseum" => {
                map.next_value::<IgnoredAny>()?;
                Function::Colosseum
            }
            _ => {
                let message =
                    format!("this cell has no function `{name}`: it has loader, compute_pi and colosseum");
                return Err(de::Error::custom(message));
            }
        };
        while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(function)
    }
}
