//! What callers notice when an app dies, and when a gateway does.

use std::time::Instant;

use super::{DemoError, Report, Stage, callers};
use crate::cli::demo::flow::{Flow, Seen, reached};
use crate::cli::demo::report::short;
use crate::cli::demo::world::ORDERS;

/// Calls of each caller before a failure and after it.
const BESIDE: usize = 8;

/// What fails, all of it in east.
#[derive(Debug, Clone, Copy)]
enum Part {
    App,
    Gateway,
}

pub(super) async fn tell(stage: &mut Stage, report: &mut Report<'_>) -> Result<(), DemoError> {
    report.chapter(
        "A cluster fails: the next one takes over, at the same name and the same address",
    )?;
    report.happens("shop/web (by name) and shop/mobile (by address) call on, two pods of each")?;
    for part in [Part::App, Part::Gateway] {
        let flow = Flow::start(callers(stage).await?, &stage.tallies);
        flow.answered("east", BESIDE, Instant::now()).await?;
        report.happens(part.dies())?;
        let died = Instant::now();
        part.fail(stage).await;
        flow.answered("south", BESIDE, died).await?;
        let seen = flow.stop().await;
        taken_over(&seen, died, report)?;
        report.happens(part.is_back())?;
        part.mend(stage).await?;
        let began = Instant::now();
        callers(stage).await?;
        let line = format!("new connections go to east again after {}", short(began.elapsed()));
        report.verdict(true, &line, "")?;
    }
    Ok(())
}

fn taken_over(seen: &[Seen], died: Instant, report: &mut Report<'_>) -> Result<(), DemoError> {
    let over = reached(seen, "south", died);
    let by = |cluster: &str| seen.iter().filter(|it| it.by.as_deref() == Ok(cluster)).count();
    let wrong = seen.iter().filter(|it| it.by.is_err()).count();
    let longest = seen.iter().map(|it| it.took).max().unwrap_or_default();
    let line = format!(
        "south has taken over after {}: of {} calls east answered {} and south {}, {wrong} were lost or misdelivered",
        over.map_or_else(|| "never".to_owned(), short),
        seen.len(),
        by("east"),
        by("south"),
    );
    let trouble = seen.iter().find_map(|it| it.by.as_ref().err());
    let shows = match (trouble, seen.iter().map(|it| it.repeated).sum::<u32>()) {
        (Some(trouble), _) => format!("One of these: {trouble}"),
        (None, 0) => format!("The longest call took {}; none had to be repeated.", short(longest)),
        (None, some) => format!(
            "{some} × a call was under way when it happened, and its caller repeated it a second later, as daprd does."
        ),
    };
    report.verdict(over.is_some() && wrong == 0, &line, &shows)?;
    Ok(())
}

impl Part {
    fn dies(self) -> &'static str {
        match self {
            Self::App => "shop/orders in east dies",
            Self::Gateway => "east's gateway dies, with every connection that it carries",
        }
    }

    fn is_back(self) -> &'static str {
        match self {
            Self::App => "shop/orders in east runs again",
            Self::Gateway => "east's gateway runs again",
        }
    }

    async fn fail(self, stage: &mut Stage) {
        let east = &mut stage.world.east;
        match self {
            Self::App => {
                if let Some(orders) = east.app(ORDERS) {
                    orders.stop().await;
                }
            }
            Self::Gateway => east.kill().await,
        }
    }

    async fn mend(self, stage: &mut Stage) -> Result<(), DemoError> {
        let east = &mut stage.world.east;
        match self {
            Self::App => match east.app(ORDERS) {
                Some(orders) => orders.resume().await,
                None => Ok(()),
            },
            Self::Gateway => Box::pin(east.begin()).await,
        }
    }
}
