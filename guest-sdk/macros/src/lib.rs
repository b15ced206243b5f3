//! The attribute macros of cellmesh-guest; its documentation says how they are used.
//!
//! - `handler` on a function makes a cell of that one function.
//! - `cell` on a module makes a cell of the functions in it that are marked `#[handler]`, `#[step]` and
//!   `#[builder]`. The marks are taken off: the functions stay ordinary ones.
//!
//! Both write an implementation of `cellmesh_guest::Cell` for a type `ThisCell`, and the exports of the
//! component.

mod expand;
mod read;

use proc_macro::TokenStream;
use proc_macro2::TokenStream as Tokens;

use crate::read::{Handler, Module};

/// Makes a cell of one function.
///
/// The function takes any of `Request` and `&mut Context`, and returns anything that is `IntoOutcome`.
#[proc_macro_attribute]
pub fn handler(attributes: TokenStream, item: TokenStream) -> TokenStream {
    finish(no_attributes(attributes).and_then(|()| {
        let function: syn::ItemFn = syn::parse(item)?;
        let handler = Handler::read(&function)?;
        let cell = expand::cell(&handler, &[]);
        Ok(quote::quote! { #function #cell })
    }))
}

/// Makes a cell of a module: of the functions in it that are marked `#[handler]` (exactly one), `#[step]`
/// and `#[builder]`.
#[proc_macro_attribute]
pub fn cell(attributes: TokenStream, item: TokenStream) -> TokenStream {
    finish(no_attributes(attributes).and_then(|()| {
        let Module { mut item, handler, functions } = Module::read(syn::parse(item)?)?;
        let cell = expand::cell(&handler, &functions);
        if let Some((_, items)) = &mut item.content {
            items.push(syn::Item::Verbatim(cell));
        }
        Ok(quote::quote! { #item })
    }))
}

/// Marks a function that can be an internal step, in a module marked `#[cell]`.
///
/// Each parameter is anything that is `Parameter`; it returns anything that is `IntoStepResult`.
#[proc_macro_attribute]
pub fn step(_: TokenStream, item: TokenStream) -> TokenStream {
    outside_of_cell("step", item)
}

/// Marks a function that makes requests from earlier results, in a module marked `#[cell]`.
///
/// Each parameter is anything that is `Parameter`; it returns anything that is `IntoCalls`.
#[proc_macro_attribute]
pub fn builder(_: TokenStream, item: TokenStream) -> TokenStream {
    outside_of_cell("builder", item)
}

/// The mark is taken off by `#[cell]`: whoever sees it expanded is not in such a module.
fn outside_of_cell(mark: &str, item: TokenStream) -> TokenStream {
    let message = format!("#[{mark}] has a meaning only inside a module marked #[cellmesh_guest::cell]");
    let error = syn::Error::new(proc_macro2::Span::call_site(), message).into_compile_error();
    let item = Tokens::from(item);
    quote::quote! { #error #item }.into()
}

fn no_attributes(attributes: TokenStream) -> syn::Result<()> {
    if attributes.is_empty() {
        return Ok(());
    }
    Err(syn::Error::new_spanned(Tokens::from(attributes), "this attribute takes no arguments"))
}

fn finish(expanded: syn::Result<Tokens>) -> TokenStream {
    expanded.unwrap_or_else(syn::Error::into_compile_error).into()
}
