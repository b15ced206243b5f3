//! Finds the marked functions, and says what is wrong with them where it can be seen.

use syn::spanned::Spanned;
use syn::{Attribute, Error, FnArg, Ident, Item, ItemFn, ItemMod, Result, Type};

/// The function that answers requests.
pub(crate) struct Handler {
    pub(crate) name: Ident,
    /// What is passed for each parameter.
    pub(crate) parameters: Vec<HandlerParameter>,
}

/// What a handler can be given.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum HandlerParameter {
    Request,
    Context,
}

/// A function that graphs can name.
pub(crate) struct Function {
    pub(crate) kind: Kind,
    pub(crate) name: Ident,
    pub(crate) parameters: Vec<Type>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Step,
    Builder,
}

/// A module marked `#[cell]`, its marks taken off.
pub(crate) struct Module {
    pub(crate) item: ItemMod,
    pub(crate) handler: Handler,
    pub(crate) functions: Vec<Function>,
}

impl Handler {
    pub(crate) fn read(function: &ItemFn) -> Result<Self> {
        check_signature(function)?;
        let parameters = function.sig.inputs.iter().map(handler_parameter).collect::<Result<Vec<_>>>()?;
        for (index, parameter) in parameters.iter().enumerate() {
            if parameters[..index].contains(parameter) {
                return Err(Error::new(
                    function.sig.inputs[index].span(),
                    "a handler takes the request once and the context once",
                ));
            }
        }
        Ok(Self { name: function.sig.ident.clone(), parameters })
    }
}

fn handler_parameter(parameter: &FnArg) -> Result<HandlerParameter> {
    let Type::Reference(reference) = bare(typed(parameter)?) else { return Ok(HandlerParameter::Request) };
    if reference.mutability.is_some() {
        return Ok(HandlerParameter::Context);
    }
    Err(Error::new(reference.span(), "a handler takes `Request` by value and `&mut Context`"))
}

/// The type without the invisible brackets that a `macro_rules` macro puts around it.
fn bare(mut of: &Type) -> &Type {
    while let Type::Group(syn::TypeGroup { elem, .. }) | Type::Paren(syn::TypeParen { elem, .. }) = of {
        of = elem;
    }
    of
}

impl Function {
    fn read(kind: Kind, function: &ItemFn) -> Result<Self> {
        check_signature(function)?;
        let parameters =
            function.sig.inputs.iter().map(|parameter| typed(parameter).cloned()).collect::<Result<_>>()?;
        Ok(Self { kind, name: function.sig.ident.clone(), parameters })
    }
}

fn typed(parameter: &FnArg) -> Result<&Type> {
    match parameter {
        FnArg::Typed(typed) => Ok(&typed.ty),
        FnArg::Receiver(receiver) => Err(Error::new(receiver.span(), "a cell's functions have no `self`")),
    }
}

/// The runtime calls the function with nothing but values.
fn check_signature(function: &ItemFn) -> Result<()> {
    let signature = &function.sig;
    if let Some(asyncness) = signature.asyncness {
        return Err(Error::new(
            asyncness.span(),
            "a cell's functions wait for nothing: put calls into the graph instead",
        ));
    }
    if let Some(unsafety) = signature.unsafety {
        return Err(Error::new(unsafety.span(), "a cell's functions are safe to call"));
    }
    if !signature.generics.params.is_empty() {
        return Err(Error::new(signature.generics.span(), "a cell's functions have no type parameters"));
    }
    Ok(())
}

impl Module {
    pub(crate) fn read(mut item: ItemMod) -> Result<Self> {
        let span = item.ident.span();
        let Some((_, items)) = &mut item.content else {
            return Err(Error::new(span, "#[cell] stands on a module with its body, `mod name { .. }`"));
        };
        let mut handlers = Vec::new();
        let mut functions = Vec::new();
        for function in items.iter_mut().filter_map(function_of) {
            match take_mark(&mut function.attrs)? {
                Some(Mark::Handler) => handlers.push(Handler::read(function)?),
                Some(Mark::Function(kind)) => functions.push(Function::read(kind, function)?),
                None => {}
            }
        }
        let handler = exactly_one(handlers, span)?;
        Ok(Self { item, handler, functions })
    }
}

fn function_of(item: &mut Item) -> Option<&mut ItemFn> {
    if let Item::Fn(function) = item { Some(function) } else { None }
}

fn exactly_one(mut handlers: Vec<Handler>, module: proc_macro2::Span) -> Result<Handler> {
    let last =
        handlers.pop().ok_or_else(|| Error::new(module, "a cell needs a function marked #[handler]"))?;
    if handlers.is_empty() {
        Ok(last)
    } else {
        Err(Error::new(last.name.span(), "a cell has one function marked #[handler]"))
    }
}

enum Mark {
    Handler,
    Function(Kind),
}

/// Takes the mark off a function. The last word of the path counts, so that `#[cellmesh_guest::step]` is
/// one too.
fn take_mark(attributes: &mut Vec<Attribute>) -> Result<Option<Mark>> {
    let mut marks = Vec::new();
    attributes.retain(|attribute| match mark(attribute) {
        Some(mark) => {
            marks.push((mark, attribute.span()));
            false
        }
        None => true,
    });
    match marks.len() {
        0 | 1 => Ok(marks.pop().map(|(mark, _)| mark)),
        _ => Err(Error::new(marks[1].1, "a function has one of #[handler], #[step] and #[builder]")),
    }
}

fn mark(attribute: &Attribute) -> Option<Mark> {
    let name = &attribute.path().segments.last()?.ident;
    if name == "handler" {
        Some(Mark::Handler)
    } else if name == "step" {
        Some(Mark::Function(Kind::Step))
    } else if name == "builder" {
        Some(Mark::Function(Kind::Builder))
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(module: &str) -> Result<Module> {
        Module::read(syn::parse_str(module).expect("the test's own module parses"))
    }

    /// Marks are taken off, whatever path they are written with; other attributes and functions stay.
    #[test]
    fn marked_functions_are_found_in_order() {
        let module = read(
            "mod shop {
                #[handler] fn page(request: Request, ctx: &mut Context) {}
                #[cellmesh_guest::step] #[inline] fn b(x: (Json<A>), y: Head) {}
                fn helper<T>() {}
                #[builder] fn a() {}
            }",
        );
        let Module { item, handler, functions } = module.unwrap();
        assert!(handler.parameters == [HandlerParameter::Request, HandlerParameter::Context]);
        let found: Vec<_> =
            functions.iter().map(|function| (function.name.to_string(), function.parameters.len())).collect();
        assert_eq!(found, [("b".to_owned(), 2), ("a".to_owned(), 0)]);
        assert!(functions[0].kind == Kind::Step && functions[1].kind == Kind::Builder);
        let left: Vec<_> =
            item.content.unwrap().1.iter_mut().filter_map(function_of).map(|f| f.attrs.len()).collect();
        assert_eq!(left, [0, 1, 0, 0]);
    }

    /// What can never work is refused where it is written, with what would be right.
    #[test]
    fn mistakes_are_said() {
        let check = |module: &str, expected: &str| {
            let error = read(module).err().expect("it must be refused").to_string();
            assert!(error.contains(expected), "{module}: {error}");
        };
        check("mod a;", "stands on a module with its body");
        check("mod a {}", "needs a function marked #[handler]");
        check("mod a { #[handler] fn b() {} #[handler] fn c() {} }", "has one function marked #[handler]");
        check("mod a { #[handler] #[step] fn b() {} }", "one of #[handler], #[step] and #[builder]");
        check("mod a { #[handler] async fn b() {} }", "wait for nothing");
        check("mod a { #[handler] fn b<T>(request: T) {} }", "no type parameters");
        check("mod a { #[handler] fn b(request: &Request) {} }", "takes `Request` by value");
        check(
            "mod a { #[handler] fn b(a: Request, b: Request) {} }",
            "the request once and the context once",
        );
        check("mod a { #[handler] fn b() {} #[step] fn c(self) {} }", "no `self`");
    }
}
