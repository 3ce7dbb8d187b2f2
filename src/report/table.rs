//! Tables for a terminal.

/// `header` and `rows` in columns two spaces apart: the first column flush left, the others flush right, a rule below the header.
/// Rows shorter than the header end early; every line ends in a newline and none in a space.
pub fn table(header: &[&str], rows: &[Vec<String>]) -> String {
    let cell_width = |cell: Option<&String>| cell.map_or(0, |cell| cell.chars().count());
    let widest = |column: usize, title: &&str| {
        rows.iter().map(|row| cell_width(row.get(column))).fold(title.chars().count(), usize::max)
    };
    let widths: Vec<usize> = header.iter().enumerate().map(|(column, title)| widest(column, title)).collect();
    let line = |cells: &mut dyn Iterator<Item = &str>| {
        let padded = cells.zip(&widths).enumerate().map(|(column, (cell, &width))| match column {
            0 => format!("{cell:width$}"),
            _ => format!("{cell:>width$}"),
        });
        padded.collect::<Vec<_>>().join("  ").trim_end().to_string() + "\n"
    };
    let rule = "-".repeat(widths.iter().sum::<usize>() + 2 * widths.len().saturating_sub(1)) + "\n";
    let body = rows.iter().map(|row| line(&mut row.iter().map(String::as_str)));
    [line(&mut header.iter().copied()), rule].into_iter().chain(body).collect()
}

/// A metric with `digits` decimals: `n/a` where it has no value, `inf` where it is infinite.
pub fn number(value: Option<f64>, digits: usize) -> String {
    value.map_or_else(|| "n/a".into(), |value| format!("{value:.digits$}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned() {
        let row = |cells: &[&str]| cells.iter().map(ToString::to_string).collect::<Vec<_>>();
        let rows = [
            row(&["zero-filled", "27.31", "0.81"]),
            row(&["dps", &number(Some(f64::INFINITY), 2)]),
            row(&["tv", "n/a", "1"]),
        ];
        let expected = "\
method        PSNR  SSIM
------------------------
zero-filled  27.31  0.81
dps            inf
tv             n/a     1
";
        assert_eq!(table(&["method", "PSNR", "SSIM"], &rows), expected);
        assert_eq!((number(None, 2), number(Some(31.256), 1)), ("n/a".into(), "31.3".into()));
    }
}
