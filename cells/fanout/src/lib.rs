//! Fan-out, fan-in, and a call that is made of earlier answers.
//!
//! ```text
//! GET /?item=tea     price ---+
//!                             +--- delivery, asked with both answers --- offer, made of all three
//!                    stock ---+
//! ```
//!
//! Who is asked is config: `fanout.price`, `fanout.stock` and `fanout.delivery` are URLs. Without them the
//! service asks itself: `/price`, `/stock` and `/delivery` answer directly.

use cellmesh_guest::prelude::*;
use serde::Serialize;

#[cellmesh_guest::cell]
mod fanout {
    use super::*;

    #[handler]
    fn offer(request: Request, ctx: &mut Context) -> Option<Response> {
        match request.path() {
            "/price" => return Some(Response::text("7")),
            "/stock" => return Some(Response::text("3")),
            "/delivery" => return Some(Response::text("tomorrow")),
            _ => {}
        }
        let (price, stock) = ctx.parallel(|ctx| {
            let price = ctx.call(Call::get(with_query(callee("price"), request.query())));
            let stock = ctx.call(Call::get(with_query(callee("stock"), request.query())));
            (price, stock)
        });
        let delivery = ctx.call_built(ask_delivery, (), [price, stock]);
        ctx.run_internal(make_offer, Args(request.query()), [price, stock, delivery]);
        None
    }

    /// Asks for the delivery of what is in stock. No call: the step is skipped, and its result is empty.
    #[builder]
    fn ask_delivery(price: String, stock: String) -> Option<Call> {
        let is_sold_out = stock.trim() == "0";
        let question = Question { price: price.trim(), stock: stock.trim() };
        (!is_sold_out).then(|| Call::post(callee("delivery")).json(&question))
    }

    #[step]
    fn make_offer(Args(wanted): Args<String>, price: String, stock: String, delivery: String) -> Json<Offer> {
        let text = |answer: String| answer.trim().to_owned();
        Json(Offer { wanted, price: text(price), stock: text(stock), delivery: text(delivery) })
    }
}

/// What the service for deliveries is sent.
#[derive(Serialize)]
struct Question<'a> {
    price: &'a str,
    stock: &'a str,
}

/// The answer.
#[derive(Debug, Serialize)]
struct Offer {
    wanted: String,
    price: String,
    stock: String,
    delivery: String,
}

/// The URL of a callee: the config's, or a path of this service.
fn callee(name: &str) -> String {
    config::get(&format!("fanout.{name}")).unwrap_or_else(|| format!("http://{}/{name}", config::service()))
}

/// `url?query`, or `url` where there is no query; behind a query that the URL has already.
fn with_query(url: String, query: &str) -> String {
    let joint = if url.contains('?') { '&' } else { '?' };
    if query.is_empty() { url } else { format!("{url}{joint}{query}") }
}

#[cfg(test)]
mod tests {
    use cellmesh_guest::testing::{Input, build, outline, run, set_config, set_service};

    use super::*;
    use crate::fanout::ThisCell;

    /// Two calls at the same time, one made of their answers, and a step that sees all three.
    #[test]
    fn offer_is_joined_from_three_answers() {
        set_service("shop");
        set_config("fanout.stock", "http://storage/count");
        let expected = "\
order#5: order
  pipe#2: pipe
    call#0: GET http://shop/price?item=tea
    call#1: GET http://storage/count?item=tea
  ask_delivery#3: builder ask_delivery(call#0, call#1)
  make_offer#4: step make_offer(call#0, call#1, ask_delivery#3) \"item=tea\"
";
        assert_eq!(outline::<ThisCell>(Request::get("/?item=tea")), expected);
    }

    /// The third call carries what the first two said.
    #[test]
    fn delivery_is_asked_with_both_answers() {
        set_service("shop");
        let calls = build::<ThisCell>(0, b"", &[Input::ok(b"7\n"), Input::ok(b"3")]);
        let expected = r#"POST http://shop/delivery {"price":"7","stock":"3"}"#;
        assert_eq!(calls, Ok(vec![expected.to_owned()]));
    }

    /// What is sold out is not delivered: the step is skipped.
    #[test]
    fn sold_out_is_not_delivered() {
        assert_eq!(build::<ThisCell>(0, b"", &[Input::ok(b"7"), Input::ok(b"0")]), Ok(vec![]));
    }

    /// The offer has all answers, an empty one too.
    #[test]
    fn offer_has_all_answers() {
        let inputs = [Input::ok(b"7"), Input::ok(b"0\n"), Input::ok(b"")];
        let offer = run::<ThisCell>(1, br#""item=tea""#, &inputs);
        assert_eq!(offer.read_text(), Ok(r#"{"wanted":"item=tea","price":"7","stock":"0","delivery":""}"#));
    }

    /// Without config the service answers itself.
    #[test]
    fn service_answers_its_own_questions() {
        for (path, body) in [("/price", "7"), ("/stock?item=tea", "3"), ("/delivery", "tomorrow")] {
            assert_eq!(outline::<ThisCell>(Request::get(path)), format!("200 {body}"));
        }
    }
}
