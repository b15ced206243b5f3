//! Running other programs: echoed, captured, or with a bound on how long they may do nothing.

use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process_group};

/// How often a bounded command is looked at.
const POLL_INTERVAL: Duration = Duration::from_millis(100);

/// Says what is run, runs it with our output and input, and fails if it does.
pub(crate) fn run(command: &mut Command) -> Result<()> {
    let status = status(command)?;
    if !status.success() {
        bail!("`{}` failed ({status})", line(command));
    }
    Ok(())
}

/// As [`run`], but an unsuccessful end is a result.
pub(crate) fn status(command: &mut Command) -> Result<ExitStatus> {
    echo(command);
    command.status().with_context(|| format!("cannot start `{}`", line(command)))
}

/// What a command wrote to its standard output; its errors go to ours.
pub(crate) fn capture(command: &mut Command) -> Result<String> {
    let output = command
        .stderr(Stdio::inherit())
        .output()
        .with_context(|| format!("cannot start `{}`", line(command)))?;
    if !output.status.success() {
        bail!("`{}` failed ({})", line(command), output.status);
    }
    String::from_utf8(output.stdout).with_context(|| format!("`{}` wrote no UTF-8", line(command)))
}

/// Whether a command can be started and succeeds; nothing that it writes is seen.
pub(crate) fn succeeds(command: &mut Command) -> bool {
    let quiet = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    quiet.status().is_ok_and(|status| status.success())
}

/// How long a command may run.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Patience {
    /// Without progress.
    pub(crate) idle: Duration,
    /// In total.
    pub(crate) total: Duration,
}

/// How a bounded command ended.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Bounded {
    Succeeded,
    Failed,
    /// It made no progress, or ran too long; it and all that it started were killed.
    GaveUp,
}

/// Runs a command that may hang for ever. It is in a process group of its own, which is killed whole
/// when `progress` has not changed for `patience.idle`, or after `patience.total`.
pub(crate) fn run_bounded(
    command: &mut Command,
    patience: Patience,
    progress: impl Fn() -> u64,
) -> Result<Bounded> {
    echo(command);
    let mut child = command
        .process_group(0)
        .stdin(Stdio::null())
        .spawn()
        .with_context(|| format!("cannot start `{}`", line(command)))?;
    let ended = wait(&mut child, patience, progress)?;
    if ended == Bounded::GaveUp {
        kill_group(&mut child)?;
    }
    Ok(ended)
}

fn wait(child: &mut Child, patience: Patience, progress: impl Fn() -> u64) -> Result<Bounded> {
    let started = Instant::now();
    let mut seen = (progress(), started);
    loop {
        if let Some(status) = child.try_wait().context("cannot wait for a child process")? {
            return Ok(if status.success() { Bounded::Succeeded } else { Bounded::Failed });
        }
        let now = Instant::now();
        let current = progress();
        if current != seen.0 {
            seen = (current, now);
        }
        if now - seen.1 > patience.idle || now - started > patience.total {
            return Ok(Bounded::GaveUp);
        }
        thread::sleep(POLL_INTERVAL);
    }
}

/// The child leads its own group and is not reaped yet, so its id names that group and no other.
fn kill_group(child: &mut Child) -> Result<()> {
    let group = Pid::from_child(child);
    kill_process_group(group, Signal::KILL).context("cannot kill a hanging command")?;
    child.wait().context("cannot wait for a killed command")?;
    Ok(())
}

fn echo(command: &Command) {
    eprintln!("+ {}", line(command));
}

/// The command as one would type it, without its environment and with the program's bare name.
fn line(command: &Command) -> String {
    let program = std::path::Path::new(command.get_program());
    let name = program.file_name().unwrap_or(program.as_os_str());
    std::iter::once(name)
        .chain(command.get_args())
        .map(|word| word.to_string_lossy())
        .collect::<Vec<_>>()
        .join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHORT: Patience = Patience { idle: Duration::from_millis(300), total: Duration::from_secs(60) };

    fn shell(script: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        command
    }

    /// A download that never starts costs the idle time, and leaves no process behind: its output ends,
    /// which it does when the last process that holds it is gone, and nobody came to write.
    #[test]
    fn hanging_command_is_killed_with_its_children() {
        let (mut output, input) = std::io::pipe().unwrap();
        let mut command = shell("(sleep 20; echo survived) & wait");
        let ended = run_bounded(command.stdout(input), SHORT, || 0).unwrap();
        drop(command);
        assert_eq!(ended, Bounded::GaveUp);
        assert_eq!(std::io::read_to_string(&mut output).unwrap(), "");
    }

    /// What makes progress may take longer than the idle time.
    #[test]
    fn progress_extends_the_wait() {
        let started = Instant::now();
        let progress = || u64::try_from(started.elapsed().as_millis()).unwrap();
        let ended = run_bounded(&mut shell("sleep 0.9"), SHORT, progress).unwrap();
        assert_eq!(ended, Bounded::Succeeded);
    }

    /// Endless progress is bounded too.
    #[test]
    fn total_bounds_progress() {
        let started = Instant::now();
        let progress = || u64::try_from(started.elapsed().as_millis()).unwrap();
        let patience = Patience { total: Duration::from_millis(300), ..SHORT };
        let ended = run_bounded(&mut shell("sleep 600"), patience, progress).unwrap();
        assert_eq!(ended, Bounded::GaveUp);
    }

    /// A failure is told from a hang.
    #[test]
    fn failure_is_not_a_timeout() {
        let patience = Patience { idle: SHORT.total, ..SHORT };
        assert_eq!(run_bounded(&mut shell("exit 3"), patience, || 0).unwrap(), Bounded::Failed);
    }
}
