//! Sleep stress. The runtime suspends the instance meanwhile; no thread of the host waits.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// `sleep_stress`: the only one that runs where the work model says nothing.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Sleep {
    pub(crate) run: bool,
    /// Seconds.
    sleep_time: f64,
}

impl Default for Sleep {
    fn default() -> Self {
        Self { run: true, sleep_time: 0.01 }
    }
}

impl Sleep {
    /// # Errors
    /// That there is no such time to sleep.
    pub(crate) fn check(&self) -> Result<(), String> {
        Duration::try_from_secs_f64(self.sleep_time)
            .map(|_| ())
            .map_err(|_| format!("sleep_time = {}: must be a number of seconds from 0", self.sleep_time))
    }

    pub(crate) fn run(&self) {
        std::thread::sleep(Duration::try_from_secs_f64(self.sleep_time).unwrap_or_default());
    }
}
