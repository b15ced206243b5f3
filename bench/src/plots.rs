//! Lines as SVG: throughput against latency, cost against the number of services.

use std::path::Path;

use anyhow::{Context, Result};
use plotters::prelude::*;

/// One line: a name, and its points from left to right.
pub(crate) type Line = (String, Vec<(f64, f64)>);

const SIZE: (u32, u32) = (720, 440);

/// Draws `lines` into an SVG file. Both axes start at zero; a line without points is left out.
pub(crate) fn draw(file: &Path, title: &str, x: &str, y: &str, lines: &[Line]) -> Result<()> {
    let points = || lines.iter().flat_map(|(_, points)| points);
    let most = |of: fn(&(f64, f64)) -> f64| points().map(of).fold(0.0, f64::max) * 1.05;
    let area = SVGBackend::new(file, SIZE).into_drawing_area();
    area.fill(&WHITE)?;
    let mut chart = ChartBuilder::on(&area)
        .caption(title, ("sans-serif", 18))
        .margin(12)
        .x_label_area_size(42)
        .y_label_area_size(72)
        .build_cartesian_2d(0.0..most(|point| point.0), 0.0..most(|point| point.1))?;
    chart.configure_mesh().x_desc(x).y_desc(y).draw()?;
    for (index, (name, points)) in lines.iter().enumerate() {
        let color = Palette99::pick(index).to_rgba();
        chart
            .draw_series(LineSeries::new(points.iter().copied(), color.stroke_width(2)).point_size(3))?
            .label(name)
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 18, y)], color.stroke_width(2)));
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::UpperLeft)
        .background_style(WHITE.mix(0.8))
        .border_style(BLACK.mix(0.3))
        .draw()?;
    area.present().with_context(|| format!("cannot write {}", file.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Names, axes and all points are in the file.
    #[test]
    fn lines_are_drawn() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("a.svg");
        let lines =
            [("ours".to_owned(), vec![(1.0, 2.0), (2.0, 3.0)]), ("theirs".to_owned(), vec![(1.0, 4.0)])];
        draw(&file, "title", "services", "us", &lines).unwrap();
        let text = std::fs::read_to_string(&file).unwrap();
        for part in ["title", "services", "us", "ours", "theirs", "<polyline", "<circle"] {
            assert!(text.contains(part), "no {part} in {text}");
        }
    }
}
