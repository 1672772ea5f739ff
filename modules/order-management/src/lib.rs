//! Takes orders: prices them, keeps the latest, and moves them through their life.
//!
//! `POST /orders`, `GET /orders/ID`, `POST /orders/ID/EVENT`, `POST /orders/price`, `GET /orders/health`. Orders
//! are kept by the instance that took them, the latest only: a real service would have a database behind it.

mod life;
mod pricing;

use std::cell::RefCell;
use std::collections::VecDeque;

use hotswap_guest::{Request, Response, fingerprint};
use serde::Serialize;

use life::Status;
use pricing::{Basket, Price};

hotswap_guest::serve!(handle);

/// Orders that an instance keeps.
const KEPT_MAX: usize = 256;

#[derive(Clone, Serialize)]
struct Order {
    id: String,
    status: Status,
    customer: String,
    #[serde(flatten)]
    price: Price,
}

#[derive(Default)]
struct Book {
    taken: u64,
    latest: VecDeque<Order>,
}

thread_local! {
    static BOOK: RefCell<Book> = RefCell::default();
}

fn handle(request: &Request) -> Response {
    match (request.method.as_str(), request.segments("/orders").as_slice()) {
        ("POST", []) => take(request).unwrap_or_else(|refused| refused),
        ("POST", ["price"]) => price(request).unwrap_or_else(|refused| refused),
        ("GET", ["health"]) => health(),
        ("GET", [id]) => with_order(id, |order| Response::json(200, order)),
        ("POST", [id, event]) => with_order(id, |order| match order.status.after(event) {
            Ok(status) => {
                order.status = status;
                Response::json(200, order)
            }
            Err(refused) => Response::error(409, &refused),
        }),
        (_, [] | [_] | [_, _]) => Response::error(405, "POST /orders, GET /orders/ID, POST /orders/ID/EVENT"),
        _ => Response::not_found(request),
    }
}

fn take(request: &Request) -> Result<Response, Response> {
    let basket: Basket = request.json()?;
    let price = basket.price().map_err(|problem| Response::error(422, &problem))?;
    let order = BOOK.with_borrow_mut(|book| {
        book.taken += 1;
        let id = fingerprint(&[&request.body, &book.taken.to_le_bytes()]);
        let order = Order {
            id: format!("ord_{id:016x}"),
            status: Status::Placed,
            customer: basket.customer,
            price,
        };
        if book.latest.len() == KEPT_MAX {
            book.latest.pop_front();
        }
        book.latest.push_back(order.clone());
        order
    });
    Ok(Response::json(201, &order))
}

fn price(request: &Request) -> Result<Response, Response> {
    let basket: Basket = request.json()?;
    let price = basket.price().map_err(|problem| Response::error(422, &problem))?;
    Ok(Response::json(200, &price))
}

fn with_order(id: &str, answer: impl FnOnce(&mut Order) -> Response) -> Response {
    BOOK.with_borrow_mut(
        |book| match book.latest.iter_mut().rev().find(|order| order.id == id) {
            Some(order) => answer(order),
            None => Response::error(404, "no such order here"),
        },
    )
}

fn health() -> Response {
    #[derive(Serialize)]
    struct Health<'a> {
        status: &'a str,
        taken: u64,
    }
    Response::json(
        200,
        &Health {
            status: "ok",
            taken: BOOK.with_borrow(|book| book.taken),
        },
    )
}
