//! How `top` looks.

use super::model::{Row, rate};
use super::{App, Screen};
use crate::output;
use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Block, Clear, Paragraph, Sparkline, Table, TableState};
use std::collections::VecDeque;
use usysv::queue::inspect::Wants;

const KEYS: &[(&str, &str)] = &[
    ("up, down, j, k", "choose a queue"),
    ("Enter", "look into it"),
    ("s", "sort by the next column"),
    ("r", "sort the other way round"),
    ("/", "show only what contains a text"),
    ("space", "stop, and go on"),
    ("+, -", "look more often, less often"),
    ("h, ?", "this"),
    ("Esc", "back"),
    ("q", "end"),
];

fn bold(text: impl Into<String>) -> Span<'static> {
    Span::styled(text.into(), Style::new().add_modifier(Modifier::BOLD))
}

fn heading() -> Style {
    Style::new().add_modifier(Modifier::REVERSED)
}

fn fullness(fraction: f64) -> Style {
    Style::new().fg(match fraction {
        f if f >= 0.9 => Color::Red,
        f if f >= 0.6 => Color::Yellow,
        _ => Color::Green,
    })
}

/// Draws everything.
pub fn draw(frame: &mut Frame, app: &App) {
    let [top, body, foot] =
        Layout::vertical([Constraint::Length(2), Constraint::Min(3), Constraint::Length(1)])
            .areas(frame.area());
    frame.render_widget(Paragraph::new(summary(app)), top);
    match app.screen {
        Screen::List => list(frame, app, body),
        Screen::Queue(id) => match app.model.row(id) {
            Some(row) => queue(frame, app, row, body),
            None => frame.render_widget(Paragraph::new(format!("queue {id} is gone")), body),
        },
    }
    frame.render_widget(Paragraph::new(footer(app)), foot);
    if app.help {
        help(frame);
    }
}

fn summary(app: &App) -> Vec<Line<'static>> {
    let totals = app.model.totals();
    let state = if app.paused { "  stopped" } else { "" };
    let first = Line::from(vec![
        bold("usysv top"),
        Span::raw(format!("  {}", usysv::directory().display())),
        Span::raw(format!("  every {:.1} s", app.delay.as_secs_f64())),
        Span::styled(state, Style::new().fg(Color::Yellow)),
    ]);
    let plural = |count: u32, what: &str| format!("{count} {what}{}", if count == 1 { "" } else { "s" });
    let blocked = Style::new().fg(if totals.senders > 0 { Color::Yellow } else { Color::Reset });
    let second = Line::from(vec![
        Span::raw(format!("{}, ", plural(totals.queues as u32, "queue"))),
        Span::raw(format!("{} messages, {} bytes  ", totals.messages, output::size(totals.bytes))),
        Span::raw(format!("in {}/s  out {}/s  ", rate(totals.rates.0), rate(totals.rates.1))),
        Span::raw(format!("waiting: {}, ", plural(totals.receivers, "receiver"))),
        Span::styled(plural(totals.senders, "sender"), blocked),
    ]);
    vec![first, second]
}

fn footer(app: &App) -> Line<'static> {
    if let Some(error) = &app.error {
        return Line::from(Span::styled(error.clone(), Style::new().fg(Color::Red)));
    }
    if app.typing {
        return Line::from(format!("show what contains: {}_", app.model.filter));
    }
    let order = if app.model.reverse { ", reversed" } else { "" };
    let filter =
        if app.model.filter.is_empty() { String::new() } else { format!("  only: {}", app.model.filter) };
    let sort = format!("{:?}", app.model.sort).to_lowercase();
    Line::from(format!("h help  q end  sorted by {sort}{order}{filter}"))
}

/// The last values, as many as fit, so that the newest is at the right edge.
fn recent(history: &VecDeque<u64>, width: u16) -> Vec<u64> {
    let width = usize::from(width);
    let missing = width.saturating_sub(history.len());
    let skipped = history.len().saturating_sub(width);
    std::iter::repeat_n(0, missing).chain(history.iter().skip(skipped).copied()).collect()
}

/// A history in one line of text.
fn small(history: &VecDeque<u64>, width: u16) -> String {
    const LEVELS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
    let recent = recent(history, width);
    let most = recent.iter().copied().max().unwrap_or(0).max(1);
    let level = |value: u64| match value {
        0 => ' ',
        value => LEVELS[((value * 8).div_ceil(most) as usize).clamp(1, 8) - 1],
    };
    recent.into_iter().map(level).collect()
}

fn list(frame: &mut Frame, app: &App, area: Rect) {
    const HISTORY: u16 = 16;
    let rows = app.model.shown();
    let line = |row: &&Row| {
        let (status, fraction) = (&row.outline.status, output::fullness(&row.outline.status));
        let blocked = if status.senders > 0 { Style::new().fg(Color::Yellow) } else { Style::new() };
        ratatui::widgets::Row::new(vec![
            Span::raw(output::key(&status.configuration)),
            Span::raw(format!("{:>10}", row.id)),
            Span::raw(row.owner.clone()),
            Span::raw(format!("{:>7}", status.qnum)),
            Span::styled(output::full(fraction, 8), fullness(fraction)),
            Span::raw(format!("{:>7}", rate(row.rates.0))),
            Span::raw(format!("{:>7}", rate(row.rates.1))),
            Span::raw(format!("{:>4}", status.receivers)),
            Span::styled(format!("{:>4}", status.senders), blocked),
            Span::raw(small(&row.depth, HISTORY)),
            Span::raw(format!("{} > {}", output::pid(status.lspid), output::pid(status.lrpid))),
        ])
    };
    let widths = [
        Constraint::Length(10),
        Constraint::Length(10),
        Constraint::Length(8),
        Constraint::Length(7),
        Constraint::Length(13),
        Constraint::Length(7),
        Constraint::Length(7),
        Constraint::Length(4),
        Constraint::Length(4),
        Constraint::Length(HISTORY),
        Constraint::Min(8),
    ];
    let names = [
        "KEY",
        "        ID",
        "OWNER",
        "   MSGS",
        "FULL",
        "   IN/S",
        "  OUT/S",
        "RECV",
        "SEND",
        "DEPTH",
        "LAST",
    ];
    let table = Table::new(rows.iter().map(line), widths)
        .header(ratatui::widgets::Row::new(names).style(heading()))
        .row_highlight_style(Style::new().add_modifier(Modifier::BOLD).bg(Color::DarkGray));
    let mut state = TableState::default();
    state.select(app.selected.and_then(|id| rows.iter().position(|row| row.id == id)));
    frame.render_stateful_widget(table, area, &mut state);
    if rows.is_empty() {
        let text = if app.model.filter.is_empty() { "no queues" } else { "no queue contains that" };
        let below = Rect { y: area.y + 1, height: area.height.saturating_sub(1), ..area };
        frame.render_widget(Paragraph::new(text), below);
    }
}

fn queue(frame: &mut Frame, app: &App, row: &Row, area: Rect) {
    let [facts, depth, sent, taken, rest] = Layout::vertical([
        Constraint::Length(6),
        Constraint::Length(5),
        Constraint::Length(4),
        Constraint::Length(4),
        Constraint::Min(0),
    ])
    .areas(area);
    let (status, settings) = (&row.outline.status, &row.outline.status.configuration);
    let fraction = output::fullness(status);
    let used = |pid: u32, when: u64| match pid {
        0 => "never".to_owned(),
        pid => format!("{} ago by {}", output::ago(when), output::pid(pid)),
    };
    let fact = |name: &str, text: String| Line::from(vec![bold(format!("{name:<10}")), Span::raw(text)]);
    let lines = vec![
        fact(
            "queue",
            format!(
                "{}  key {}  owner {}  perms {}",
                row.id,
                output::key(settings),
                row.owner,
                output::perms(settings.mode)
            ),
        ),
        Line::from(vec![
            bold(format!("{:<10}", "full")),
            Span::styled(output::full(fraction, 30), fullness(fraction)),
            Span::raw(format!("  {} messages, {} of {} bytes", status.qnum, status.cbytes, settings.qbytes)),
        ]),
        fact("last sent", used(status.lspid, status.stime)),
        fact("last recv", used(status.lrpid, status.rtime)),
        fact("waiting", output::waiting(status)),
    ];
    frame.render_widget(Paragraph::new(lines), facts);
    graph(frame, depth, "messages in the queue", &row.depth, Color::Green);
    graph(frame, sent, "in, per second", &row.sent, Color::Cyan);
    graph(frame, taken, "out, per second", &row.taken, Color::Blue);
    let [left, right] = Layout::horizontal([Constraint::Length(40), Constraint::Min(0)]).areas(rest);
    let mut lines = vec![Line::styled("      TYPE        MSGS       BYTES", heading())];
    match &app.types {
        Some(types) => lines.extend(types.iter().map(|count| {
            Line::from(format!("{:>10}  {:>10}  {:>10}", count.mtype, count.messages, count.bytes))
        })),
        None => lines.push(Line::from("not to be seen")),
    }
    frame.render_widget(Paragraph::new(lines), left);
    let mut lines = vec![Line::styled("WHO WAITS", heading())];
    lines.extend(row.outline.waiters.iter().map(|waiter| {
        let role = if matches!(waiter.wants, Wants::Room(_)) { "send" } else { "recv" };
        Line::from(format!("{role}  {}: {}", output::who(waiter), output::wants(waiter.wants)))
    }));
    frame.render_widget(Paragraph::new(lines), right);
}

fn graph(frame: &mut Frame, area: Rect, title: &str, history: &VecDeque<u64>, colour: Color) {
    let data = recent(history, area.width);
    let (now, most) = (data.last().copied().unwrap_or(0), data.iter().copied().max().unwrap_or(0));
    let title = format!("{title}: {now}, at most {most}");
    let sparkline = Sparkline::default()
        .block(Block::new().title(title))
        .data(data)
        .max(most.max(1))
        .style(Style::new().fg(colour));
    frame.render_widget(sparkline, area);
}

fn help(frame: &mut Frame) {
    let lines: Vec<Line> = KEYS
        .iter()
        .map(|(key, what)| Line::from(vec![bold(format!("{key:<16}")), Span::raw(*what)]))
        .collect();
    let area = frame.area();
    let (width, height) = (52.min(area.width), (lines.len() as u16 + 2).min(area.height));
    let place = Rect { x: (area.width - width) / 2, y: (area.height - height) / 2, width, height };
    frame.render_widget(Clear, place);
    frame.render_widget(Paragraph::new(lines).block(Block::bordered().title("keys")), place);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::top::model::tests::two_looks;
    use ratatui::Terminal;
    use ratatui::backend::TestBackend;
    use std::time::Duration;

    fn screen(app: &App, width: u16, height: u16) -> String {
        let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
        terminal.draw(|frame| draw(frame, app)).unwrap();
        let buffer = terminal.backend().buffer().clone();
        let line = |y| (0..width).map(|x| buffer[(x, y)].symbol()).collect::<String>();
        (0..height).map(|y| format!("{}\n", line(y).trim_end())).collect()
    }

    fn app() -> App {
        App { model: two_looks(), delay: Duration::from_secs(1), ..App::default() }
    }

    #[test]
    fn the_list_shows_what_moves() {
        let shown = screen(&app(), 120, 8);
        assert!(shown.contains("2 queues, 110 messages, 110 bytes  in 40/s  out 15/s"), "{shown}");
        let line = shown.lines().find(|line| line.contains("0x00000007")).unwrap();
        assert!(line.contains("user0") && line.contains(" 20%") && line.contains(" 15 "), "{line}");
        let line = shown.lines().find(|line| line.contains("0x00000003")).unwrap();
        assert!(line.contains("▅█") && line.contains(" 90%"), "{line}");
        assert!(shown.contains("sorted by rate"), "{shown}");
    }

    #[test]
    fn a_queue_is_looked_into() {
        let mut app = app();
        app.screen = Screen::Queue(1);
        let shown = screen(&app, 100, 30);
        assert!(shown.contains("messages in the queue: 90, at most 90"), "{shown}");
        assert!(shown.contains("in, per second: 20, at most 20"), "{shown}");
        assert!(shown.contains("WHO WAITS") && shown.contains("not to be seen"), "{shown}");
        app.screen = Screen::Queue(2);
        assert!(screen(&app, 100, 30).contains("queue 2 is gone"));
    }

    #[test]
    fn help_and_filter_are_shown() {
        let mut app = app();
        app.help = true;
        assert!(screen(&app, 80, 24).contains("show only what contains a text"));
        app.help = false;
        (app.typing, app.model.filter) = (true, "zzz".to_owned());
        let shown = screen(&app, 80, 24);
        assert!(
            shown.contains("show what contains: zzz_") && shown.contains("no queue contains that"),
            "{shown}"
        );
    }

    #[test]
    fn no_terminal_is_too_small() {
        let mut app = app();
        for help in [false, true] {
            for shown in [Screen::List, Screen::Queue(0)] {
                (app.screen, app.help) = (shown, help);
                for (width, height) in [(1, 1), (3, 2), (10, 5), (40, 10)] {
                    screen(&app, width, height);
                }
            }
        }
    }
}
