//! A convolution as an operation graph of cuDNN, and the engines that can compute it.

use cudarc::cudnn::sys::{
    self, cudnnBackendBehaviorNote_t as BehaviorNote, cudnnBackendHeurMode_t as Mode,
    cudnnBackendNumericalNote_t as Note,
};

use super::descriptor::{Attribute, Descriptor, Kind, Type};
use super::operation::Parts;
use super::session::Session;
use super::{Convolution, Element, Epilogue};
use crate::Result;

/// More knobs or notes than an engine of any version has.
const MANY: usize = 64;

/// An engine with its settings: what cuDNN needs to build the same plan again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Recipe {
    /// The engine's global index.
    pub(super) engine: i64,
    /// Types and values of the knobs; those that are not named keep the engine's default.
    pub(super) knobs: Vec<(u32, i64)>,
}

/// One convolution, ready to be asked for engines.
pub(super) struct Graph {
    graph: Descriptor,
    element: Element,
    // cuDNN does not say whether a finalized graph still refers to what it was made of.
    _parts: Parts,
}

/// A finalized execution plan.
pub(super) struct Engine {
    pub(super) plan: Descriptor,
    pub(super) workspace: usize,
    pub(super) recipe: Recipe,
    /// The plan as text, if building it means compiling a kernel, which the text saves.
    pub(super) text: Option<Vec<u8>>,
}

impl Graph {
    pub(super) fn new(session: &Session, convolution: &Convolution, epilogue: Epilogue) -> Result<Self> {
        let parts = Parts::new(convolution, epilogue)?;
        let mut graph = Descriptor::new(Kind::CUDNN_BACKEND_OPERATIONGRAPH_DESCRIPTOR)?;
        let operations: Vec<_> = parts.operations.iter().map(Descriptor::raw).collect();
        graph.set(Attribute::CUDNN_ATTR_OPERATIONGRAPH_OPS, Type::CUDNN_TYPE_BACKEND_DESCRIPTOR, &operations)?;
        let graph = session.with_handle(|handle| {
            graph.set(Attribute::CUDNN_ATTR_OPERATIONGRAPH_HANDLE, Type::CUDNN_TYPE_HANDLE, &[handle])?;
            graph.finalize("an operation graph")
        })?;
        Ok(Self { graph, element: convolution.element, _parts: parts })
    }

    /// What cuDNN's heuristics propose, best guess first, without repetitions and without engines that may not be used: ten by
    /// mode A, four more by mode B; the fallback mode where these know nothing; where that knows nothing, every engine there is.
    pub(super) fn proposals(&self) -> Result<Vec<Recipe>> {
        let mut recipes = Vec::new();
        for (mode, most) in [(Mode::CUDNN_HEUR_MODE_A, 10), (Mode::CUDNN_HEUR_MODE_B, 14)] {
            self.ask(mode, most, &mut recipes);
        }
        if recipes.is_empty() {
            self.ask(Mode::CUDNN_HEUR_MODE_FALLBACK, 10, &mut recipes);
        }
        if recipes.is_empty() {
            let engines = self.graph.integer(Attribute::CUDNN_ATTR_OPERATIONGRAPH_ENGINE_GLOBAL_COUNT)?;
            let usable = |&engine: &i64| self.engine(engine).and_then(|engine| self.allows(&engine)).unwrap_or(false);
            recipes.extend((0..engines).filter(usable).map(|engine| Recipe { engine, knobs: Vec::new() }));
        }
        Ok(recipes)
    }

    /// A mode that cuDNN does not have for this graph proposes nothing.
    fn ask(&self, mode: Mode, most: usize, recipes: &mut Vec<Recipe>) {
        let Ok(configurations) = self.configurations(mode) else { return };
        for configuration in configurations {
            if recipes.len() == most {
                return;
            }
            match self.recipe(&configuration) {
                Ok(Some(recipe)) if !recipes.contains(&recipe) => recipes.push(recipe),
                _ => {}
            }
        }
    }

    fn configurations(&self, mode: Mode) -> Result<Vec<Descriptor>> {
        let mut heuristic = Descriptor::new(Kind::CUDNN_BACKEND_ENGINEHEUR_DESCRIPTOR)?;
        heuristic.set_descriptor(Attribute::CUDNN_ATTR_ENGINEHEUR_OPERATION_GRAPH, &self.graph)?;
        heuristic.set(Attribute::CUDNN_ATTR_ENGINEHEUR_MODE, Type::CUDNN_TYPE_HEUR_MODE, &[mode])?;
        let heuristic = heuristic.finalize("an engine heuristic")?;
        heuristic.descriptors(Attribute::CUDNN_ATTR_ENGINEHEUR_RESULTS, Kind::CUDNN_BACKEND_ENGINECFG_DESCRIPTOR, MANY)
    }

    /// The recipe of a configuration, if its engine may be used.
    fn recipe(&self, configuration: &Descriptor) -> Result<Option<Recipe>> {
        let engines = configuration.descriptors(
            Attribute::CUDNN_ATTR_ENGINECFG_ENGINE,
            Kind::CUDNN_BACKEND_ENGINE_DESCRIPTOR,
            1,
        )?;
        let Some(engine) = engines.first() else { return Ok(None) };
        if !self.allows(engine)? {
            return Ok(None);
        }
        let choices = configuration.descriptors(
            Attribute::CUDNN_ATTR_ENGINECFG_KNOB_CHOICES,
            Kind::CUDNN_BACKEND_KNOB_CHOICE_DESCRIPTOR,
            MANY,
        )?;
        let mut knobs = Vec::with_capacity(choices.len());
        for choice in choices {
            let mut knob = [0u32];
            choice.get(Attribute::CUDNN_ATTR_KNOB_CHOICE_KNOB_TYPE, Type::CUDNN_TYPE_KNOB_TYPE, &mut knob)?;
            knobs.push((knob[0], choice.integer(Attribute::CUDNN_ATTR_KNOB_CHOICE_KNOB_VALUE)?));
        }
        knobs.sort_unstable();
        Ok(Some(Recipe { engine: engine.integer(Attribute::CUDNN_ATTR_ENGINE_GLOBAL_INDEX)?, knobs }))
    }

    /// Whether an engine computes what [`Element`] promises, the same bits every time.
    fn allows(&self, engine: &Descriptor) -> Result<bool> {
        let mut notes = [0u32; MANY];
        let (name, type_) = (Attribute::CUDNN_ATTR_ENGINE_NUMERICAL_NOTE, Type::CUDNN_TYPE_NUMERICAL_NOTE);
        let count = engine.get(name, type_, &mut notes)?.min(MANY);
        let forbidden: &[Note] = match self.element {
            Element::Bf16 | Element::Tf32 => &[],
            // On f32 tensors tensor cores mean TF32. Of Winograd's tiles the largest loses digits that f32 is asked for.
            Element::F32 => &[
                Note::CUDNN_NUMERICAL_NOTE_TENSOR_CORE,
                Note::CUDNN_NUMERICAL_NOTE_DOWN_CONVERT_INPUTS,
                Note::CUDNN_NUMERICAL_NOTE_WINOGRAD_TILE_13x13,
            ],
        };
        let always =
            [Note::CUDNN_NUMERICAL_NOTE_NONDETERMINISTIC, Note::CUDNN_NUMERICAL_NOTE_REDUCED_PRECISION_REDUCTION];
        Ok(!forbidden.iter().chain(&always).any(|&note| notes[..count].contains(&(note as u32))))
    }

    fn engine(&self, index: i64) -> Result<Descriptor> {
        let mut engine = Descriptor::new(Kind::CUDNN_BACKEND_ENGINE_DESCRIPTOR)?;
        engine.set_descriptor(Attribute::CUDNN_ATTR_ENGINE_OPERATION_GRAPH, &self.graph)?;
        engine.set_integers(Attribute::CUDNN_ATTR_ENGINE_GLOBAL_INDEX, &[index])?;
        engine.finalize("an engine")
    }

    /// Builds the plan of a recipe.
    pub(super) fn build(&self, session: &Session, recipe: Recipe) -> Result<Engine> {
        let engine = self.engine(recipe.engine)?;
        let mut choices = Vec::with_capacity(recipe.knobs.len());
        for &(knob, value) in &recipe.knobs {
            let mut choice = Descriptor::new(Kind::CUDNN_BACKEND_KNOB_CHOICE_DESCRIPTOR)?;
            choice.set(Attribute::CUDNN_ATTR_KNOB_CHOICE_KNOB_TYPE, Type::CUDNN_TYPE_KNOB_TYPE, &[knob])?;
            choice.set_integers(Attribute::CUDNN_ATTR_KNOB_CHOICE_KNOB_VALUE, &[value])?;
            choices.push(choice.finalize("the choice of a knob")?);
        }
        let mut configuration = Descriptor::new(Kind::CUDNN_BACKEND_ENGINECFG_DESCRIPTOR)?;
        configuration.set_descriptor(Attribute::CUDNN_ATTR_ENGINECFG_ENGINE, &engine)?;
        let raw: Vec<_> = choices.iter().map(Descriptor::raw).collect();
        if !raw.is_empty() {
            let name = Attribute::CUDNN_ATTR_ENGINECFG_KNOB_CHOICES;
            configuration.set(name, Type::CUDNN_TYPE_BACKEND_DESCRIPTOR, &raw)?;
        }
        let configuration = configuration.finalize("an engine configuration")?;
        let mut plan = Descriptor::new(Kind::CUDNN_BACKEND_EXECUTION_PLAN_DESCRIPTOR)?;
        plan.set_descriptor(Attribute::CUDNN_ATTR_EXECUTION_PLAN_ENGINE_CONFIG, &configuration)?;
        let plan = finalize_plan(session, plan)?;
        let workspace = workspace(&plan)?;
        let text = if compiles(&engine) { text(&plan).ok() } else { None };
        Ok(Engine { plan, workspace, recipe, text })
    }
}

/// The plan that [`Engine::text`] describes.
pub(super) fn load(session: &Session, recipe: Recipe, text: Vec<u8>) -> Result<Engine> {
    let mut plan = Descriptor::new(Kind::CUDNN_BACKEND_EXECUTION_PLAN_DESCRIPTOR)?;
    plan.set(Attribute::CUDNN_ATTR_EXECUTION_PLAN_JSON_REPRESENTATION, Type::CUDNN_TYPE_CHAR, &text)?;
    let plan = finalize_plan(session, plan)?;
    let workspace = workspace(&plan)?;
    Ok(Engine { plan, workspace, recipe, text: Some(text) })
}

fn finalize_plan(session: &Session, mut plan: Descriptor) -> Result<Descriptor> {
    session.with_handle(|handle: sys::cudnnHandle_t| {
        plan.set(Attribute::CUDNN_ATTR_EXECUTION_PLAN_HANDLE, Type::CUDNN_TYPE_HANDLE, &[handle])?;
        plan.finalize("an execution plan")
    })
}

fn workspace(plan: &Descriptor) -> Result<usize> {
    let bytes = plan.integer(Attribute::CUDNN_ATTR_EXECUTION_PLAN_WORKSPACE_SIZE)?;
    usize::try_from(bytes).map_err(|_| super::failure(format!("cuDNN: a plan asks for {bytes} bytes of workspace")))
}

fn compiles(engine: &Descriptor) -> bool {
    let mut notes = [0u32; MANY];
    let (name, type_) = (Attribute::CUDNN_ATTR_ENGINE_BEHAVIOR_NOTE, Type::CUDNN_TYPE_BEHAVIOR_NOTE);
    let count = engine.get(name, type_, &mut notes).unwrap_or(0).min(MANY);
    notes[..count].contains(&(BehaviorNote::CUDNN_BEHAVIOR_NOTE_RUNTIME_COMPILATION as u32))
}

fn text(plan: &Descriptor) -> Result<Vec<u8>> {
    let (name, type_) = (Attribute::CUDNN_ATTR_EXECUTION_PLAN_JSON_REPRESENTATION, Type::CUDNN_TYPE_CHAR);
    let mut text = vec![0u8; plan.get::<u8>(name, type_, &mut [])?];
    let count = plan.get(name, type_, &mut text)?;
    text.truncate(count);
    Ok(text)
}
