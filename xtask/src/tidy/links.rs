//! Links between our pages.

use std::path::{Component, Path, PathBuf};

use super::{Finding, Source};

/// Reports links to files that `exists` does not know; its paths are from the root of the checkout.
pub(super) fn check(source: &Source, exists: impl Fn(&Path) -> bool) -> Vec<Finding> {
    let folder = Path::new(&source.path).parent().unwrap_or(Path::new(""));
    let mut findings = Vec::new();
    for (line, target) in links(&source.text) {
        let Some(file) = file_of(target) else {
            continue;
        };
        match resolve(folder, file) {
            Some(path) if exists(&path) => {}
            Some(_) => findings.push(source.finding(line, format!("link to `{file}`: no such file"))),
            None => findings.push(source.finding(line, format!("link to `{file}` leaves the checkout"))),
        }
    }
    findings
}

/// The targets of `[text](target)`, with their lines; code is left out.
fn links(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let mut in_code = false;
    let prose = text.lines().enumerate().filter(move |(_, line)| {
        let fence = line.trim_start().starts_with("```");
        in_code ^= fence;
        !in_code && !fence
    });
    prose.flat_map(|(index, line)| links_in_line(line).map(move |target| (index + 1, target)))
}

fn links_in_line(line: &str) -> impl Iterator<Item = &str> {
    // Every second part between backticks is code.
    let prose = line.split('`').collect::<Vec<_>>();
    let has_code = prose.len() > 2;
    line.match_indices("](").filter_map(move |(at, _)| {
        let in_code = has_code && line[..at].matches('`').count() % 2 == 1;
        let target = line[at + 2..].split([')', ' ']).next()?;
        (!in_code && !target.is_empty()).then_some(target)
    })
}

/// The file that a link names; none for other sites and for places on the same page.
fn file_of(target: &str) -> Option<&str> {
    let file = target.split('#').next().unwrap_or_default();
    let is_elsewhere = target.contains("://") || target.starts_with("mailto:");
    (!file.is_empty() && !is_elsewhere).then_some(file)
}

/// `folder/file` without `.` and `..`; none if it leads out of the root.
fn resolve(folder: &Path, file: &str) -> Option<PathBuf> {
    let mut path = PathBuf::new();
    for part in folder.join(file).components() {
        match part {
            Component::Normal(name) => path.push(name),
            Component::ParentDir => path.pop().then_some(())?,
            Component::CurDir => {}
            Component::RootDir | Component::Prefix(_) => return None,
        }
    }
    Some(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn findings(path: &str, text: &str) -> Vec<String> {
        let source = Source { path: path.to_owned(), text: text.to_owned() };
        let known = ["README.md", "docs/decisions/README.md", "docs/a.md"].map(Path::new);
        let found = check(&source, |path| known.contains(&path));
        found.iter().map(ToString::to_string).collect()
    }

    /// Relative to the page, with or without a place on it.
    #[test]
    fn existing_files_are_found() {
        let text = "[a](decisions/README.md) [b](../README.md#x), ![c](./a.md \"title\")\n\
                    [d](https://example.org/x) [e](#x) `[f](nothing.md)`\n```\n[g](nothing.md)\n```\n";
        assert_eq!(findings("docs/a.md", text), [""; 0]);
    }

    /// The message says where the link is and what it names.
    #[test]
    fn missing_files_are_named() {
        assert_eq!(
            findings("docs/a.md", "x\n[a](b.md#c) and [d](../../e.md) `c` [f](g.md)"),
            [
                "docs/a.md:2: link to `b.md`: no such file",
                "docs/a.md:2: link to `../../e.md` leaves the checkout",
                "docs/a.md:2: link to `g.md`: no such file",
            ]
        );
    }
}
